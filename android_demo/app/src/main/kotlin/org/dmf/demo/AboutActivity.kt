package org.dmf.demo

import android.app.Activity
import android.os.Bundle
import android.view.View
import android.widget.LinearLayout
import android.widget.TextView
import org.dmf.classifier.ModelPackage
import java.io.File

/** What a package is, where it came from and how far it was checked. */
class AboutActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.about)
        view<View>(R.id.root).avoidSystemBars()
        val folder = intent.getStringExtra(EXTRA_FOLDER) ?: return finish()
        val app = demo
        app.background.run(
            work = {
                app.resources.facts(ModelPackage.open(File(folder)), app.verdicts, app.phone.description)
            },
            failed = { show(listOf(Fact(R.string.refused, it, isBad = true))) },
            done = ::show,
        )
    }

    private fun show(facts: List<Fact>) {
        val list = view<LinearLayout>(R.id.facts)
        for (fact in facts) {
            val entry = layoutInflater.inflate(R.layout.fact, list, false)
            entry.child<TextView>(R.id.title).setText(fact.title)
            val value = entry.child<TextView>(R.id.value)
            value.text = fact.value
            if (fact.isBad) value.setTextColor(getColor(R.color.error))
            list.addView(entry)
        }
    }

    companion object {
        const val EXTRA_FOLDER = "folder"
    }
}
