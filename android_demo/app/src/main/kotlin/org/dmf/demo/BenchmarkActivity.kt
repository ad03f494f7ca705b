package org.dmf.demo

import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.util.Log
import android.view.View
import android.view.WindowManager
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.CheckBox
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.Spinner
import android.widget.TableLayout
import android.widget.TextView
import org.dmf.classifier.Accelerator
import java.io.FileNotFoundException

/** Measures by hand, or by the benchmark intent: then without a form, and the result goes into a file for adb. */
class BenchmarkActivity : Activity() {
    private val benchmarks get() = demo.benchmarks
    private lateinit var boxes: Map<Accelerator, CheckBox>
    private lateinit var progress: TextView
    private val shower: (Measurement) -> Unit = ::show
    private var isForAdb = false
    private var packages = emptyList<InstalledPackage>()

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.benchmark)
        view<View>(R.id.root).avoidSystemBars()
        demo.predictor.close() // it would take memory and a part of the GPU
        progress = view(R.id.progress)
        boxes = Accelerator.entries.associateWith(::box)
        view<Button>(R.id.start).setOnClickListener { startOrStop() }
        view<Button>(R.id.share).setOnClickListener { share() }
        view<Button>(R.id.save).setOnClickListener { chooseFile() }
        // one that comes back, from the past or from the list of recent apps, has been answered
        val isNew = savedInstanceState == null && intent.flags and Intent.FLAG_ACTIVITY_LAUNCHED_FROM_HISTORY == 0
        if (!(isNew && answer(intent))) listPackages()
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        answer(intent)
    }

    override fun onStart() {
        super.onStart()
        benchmarks.listener = shower
        show(benchmarks.measurement)
    }

    override fun onResume() {
        super.onResume()
        benchmarks.foreground.onResumed(true)
    }

    override fun onWindowFocusChanged(hasFocus: Boolean) {
        super.onWindowFocusChanged(hasFocus)
        benchmarks.foreground.onFocused(hasFocus)
    }

    override fun onPause() {
        benchmarks.foreground.onResumed(false)
        super.onPause()
    }

    override fun onStop() {
        if (benchmarks.listener === shower) benchmarks.listener = null // not that of a screen that came after
        super.onStop()
    }

    override fun onDestroy() {
        if (isFinishing) benchmarks.cancel()
        super.onDestroy()
    }

    /** Starts what [intent] asks for, or writes why not; false where it asks for nothing. */
    private fun answer(intent: Intent): Boolean {
        val asked = BenchmarkIntent { name -> extra(intent, name) }
        if (!asked.asksForRun) return false
        val problem = attempt { answer(asked) }.exceptionOrNull() ?: return true
        Log.e(TAG, problem.inWords()) // the one place left for a run whose name can be no file's
        progress.text = problem.inWords()
        return true
    }

    /** Of whatever type was given; none, where the extras cannot be unpacked. */
    @Suppress("DEPRECATION")
    private fun extra(
        intent: Intent,
        name: String,
    ): Any? = attempt { intent.extras?.get(name) }.getOrNull()

    private fun answer(asked: BenchmarkIntent) {
        val run = asked.run()
        val folder = getExternalFilesDir(null) ?: throw FileNotFoundException("the shared storage is not there")
        val runs = Runs(folder.resolve("runs"))
        attempt {
            check(!benchmarks.isRunning) { Benchmarks.BUSY }
            isForAdb = true
            runs.forget(run)
            wake()
            benchmarks.start(asked.plan()) { runs.write(run, it) }
        }.onFailure {
            runs.write(run, errorDocument(it.inWords()))
            if (!benchmarks.isRunning) progress.text = it.inWords()
        }
    }

    /** The manifest says the same to Android 8.1 and later. */
    @Suppress("DEPRECATION")
    private fun wake() {
        window.addFlags(
            WindowManager.LayoutParams.FLAG_SHOW_WHEN_LOCKED or WindowManager.LayoutParams.FLAG_TURN_SCREEN_ON,
        )
    }

    private fun box(accelerator: Accelerator): CheckBox {
        val box = CheckBox(this)
        box.text = accelerator.id
        box.isChecked = accelerator == Accelerator.CPU
        view<LinearLayout>(R.id.accelerators).addView(box)
        return box
    }

    private fun listPackages() {
        demo.background.run(
            work = {
                demo.packages.installEmbedded()
                demo.packages.list()
            },
            failed = { progress.text = it },
            done = { found ->
                packages = found
                view<Spinner>(R.id.packages).adapter =
                    ArrayAdapter(this, android.R.layout.simple_spinner_dropdown_item, found.map { it.title })
                val chosen = found.indexOfFirst { it.folder.path == intent.getStringExtra(EXTRA_FOLDER) }
                view<Spinner>(R.id.packages).setSelection(maxOf(chosen, 0))
                if (found.isEmpty()) progress.setText(R.string.no_package)
            },
        )
    }

    private fun startOrStop() {
        if (benchmarks.isRunning) {
            benchmarks.cancel()
            progress.setText(R.string.stopping)
            return
        }
        attempt {
            val chosen = packages.getOrNull(view<Spinner>(R.id.packages).selectedItemPosition)
            val plan =
                BenchmarkPlan(
                    folder = requireNotNull(chosen) { getString(R.string.no_package) }.folder,
                    accelerators = boxes.filterValues { it.isChecked }.keys.toList(),
                    threads = number(R.id.threads),
                    warmup = number(R.id.warmup),
                    repeats = number(R.id.repeats),
                    postProcessing = view<CheckBox>(R.id.post_processing).isChecked,
                )
            benchmarks.start(plan)
        }.onFailure { progress.text = it.inWords() }
    }

    private fun number(id: Int): Int {
        val field = view<EditText>(id)
        return requireNotNull(field.text.toString().toIntOrNull()) { getString(R.string.no_number) }
    }

    private fun show(measurement: Measurement) {
        val running = measurement is Measurement.Running
        val reports = (measurement as? Measurement.Done)?.reports.orEmpty()
        val start = view<Button>(R.id.start)
        start.setText(if (running) R.string.stop else R.string.start)
        start.visibility = if (isForAdb && !running) View.GONE else View.VISIBLE
        view<View>(R.id.form).visibility = if (isForAdb || running) View.GONE else View.VISIBLE
        view<View>(R.id.hand_over).visibility = if (reports.isEmpty()) View.GONE else View.VISIBLE
        if (running) {
            window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        } else {
            window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        }
        // nothing moves meanwhile: an animation takes the GPU and a core
        when (measurement) {
            is Measurement.None -> {}

            is Measurement.Running -> {
                progress.text = measurement.run { getString(R.string.measuring, accelerator, index, count) }
            }

            is Measurement.Done -> {
                val first = reports.first()
                val measured =
                    getString(R.string.measured, first.manifest.name, first.samplesMs.size, first.threads)
                val chosen = first.postProcessing?.let { getString(chosenText(it)) }
                progress.text = listOfNotNull(measured, chosen).joinToString(" ")
            }

            is Measurement.Failed -> {
                progress.text = measurement.problem
            }
        }
        showReports(view(R.id.table), reports)
        showFlags(reports.flatMap { it.invalidBecause }.distinct().map { getString(flagText(it)) })
    }

    private fun showFlags(reasons: List<String>) {
        val flags = view<TextView>(R.id.flags)
        flags.text = reasons.joinToString("\n")
        flags.setTextColor(getColor(R.color.error))
    }

    private fun document(): String? = (benchmarks.measurement as? Measurement.Done)?.document

    private fun share() {
        val document = document() ?: return
        if (document.length > MAX_SHARED_CHARACTERS) {
            progress.setText(R.string.too_long_to_share)
            return
        }
        val send =
            Intent(Intent.ACTION_SEND)
                .setType("text/plain")
                .putExtra(Intent.EXTRA_SUBJECT, getString(R.string.benchmark))
                .putExtra(Intent.EXTRA_TEXT, document)
        attempt { startActivity(Intent.createChooser(send, null)) }.onFailure { progress.text = it.inWords() }
    }

    private fun chooseFile() {
        val create =
            Intent(Intent.ACTION_CREATE_DOCUMENT)
                .addCategory(Intent.CATEGORY_OPENABLE)
                .setType("application/json")
                .putExtra(Intent.EXTRA_TITLE, "latency.json")
        attempt { startActivityForResult(create, SAVE) }.onFailure { progress.text = it.inWords() }
    }

    override fun onActivityResult(
        requestCode: Int,
        resultCode: Int,
        data: Intent?,
    ) {
        val uri = data?.data
        if (requestCode == SAVE && resultCode == RESULT_OK && uri != null) save(uri)
    }

    private fun save(uri: Uri) {
        val document = document()
        if (document == null) {
            progress.setText(R.string.nothing_to_save) // Android ended the app meanwhile
            return
        }
        val resolver = contentResolver
        demo.background.run(
            work = {
                val output = resolver.openOutputStream(uri, "wt") ?: throw FileNotFoundException("the file is gone")
                output.use { it.write(document.toByteArray()) }
            },
            failed = { progress.text = it },
            done = { progress.setText(R.string.saved) },
        )
    }

    companion object {
        /** The installed package that the form shows first. */
        const val EXTRA_FOLDER = "folder"
        private const val TAG = "dmf"
        private const val SAVE = 1
        private const val MAX_SHARED_CHARACTERS = 200_000 // an intent must be smaller than 1 MB
    }
}
