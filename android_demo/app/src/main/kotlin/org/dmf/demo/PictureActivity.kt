package org.dmf.demo

import android.Manifest
import android.app.Activity
import android.content.Intent
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.net.Uri
import android.os.Bundle
import android.view.Display
import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.LinearLayout
import android.widget.PopupMenu
import android.widget.RadioGroup
import android.widget.Spinner
import android.widget.TextView
import org.dmf.classifier.Accelerator
import org.dmf.classifier.DetectedObject
import org.dmf.classifier.Finding
import java.io.File
import java.util.concurrent.atomic.AtomicBoolean

/** Shows what the network finds in what the camera sees, in a picture, or in a drawing. */
class PictureActivity :
    Activity(),
    Predictor.Listener {
    private val predictor get() = demo.predictor
    private lateinit var pictureView: PictureView
    private lateinit var drawingView: DrawingView
    private val overlays get() = listOf(pictureView.overlay, drawingView.overlay)
    private lateinit var sources: RadioGroup
    private val shelfListener: (Shelf.Content) -> Unit = ::showPackages

    private var packages = emptyList<InstalledPackage>()
    private var folder: File? = null
    private var problems = emptyList<String>()
    private var accelerator = Accelerator.CPU
    private var picture: Uri? = null

    private var camera: CameraFeed? = null
    private var isResumed = false
    private var askedForCamera = false
    private var isEmpty = false

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.picture)
        view<View>(R.id.root).avoidSystemBars()
        pictureView = view(R.id.picture_view)
        drawingView = view(R.id.drawing_view)
        sources = view(R.id.sources)
        folder = preferences().getString(FOLDER, null)?.let(::File)
        if (savedInstanceState == null) sources.check(R.id.camera) else restore(savedInstanceState)
        listen()
        showSource()
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putString(ACCELERATOR, accelerator.id)
        outState.putInt(SOURCE, sources.checkedRadioButtonId)
        outState.putString(PICTURE, picture?.toString())
        outState.putBoolean(ASKED, askedForCamera)
        outState.putBoolean(WHITE_ON_BLACK, drawingView.whiteOnBlack)
        outState.putInt(STROKES, drawingView.strokes.size)
        drawingView.strokes.forEachIndexed { index, stroke -> outState.putFloatArray("$STROKES$index", stroke) }
    }

    private fun restore(saved: Bundle) {
        accelerator = Accelerator.entries.find { it.id == saved.getString(ACCELERATOR) } ?: accelerator
        sources.check(saved.getInt(SOURCE, R.id.camera))
        picture = saved.getString(PICTURE)?.let(Uri::parse)
        askedForCamera = saved.getBoolean(ASKED)
        val strokes = (0 until saved.getInt(STROKES)).mapNotNull { saved.getFloatArray("$STROKES$it") }
        drawingView.show(strokes, saved.getBoolean(WHITE_ON_BLACK))
    }

    private fun listen() {
        sources.setOnCheckedChangeListener { _, _ -> changeSource() }
        drawingView.onChange = ::predictDrawing
        view<View>(R.id.more).setOnClickListener(::showMenu)
        view<Button>(R.id.choose_picture).setOnClickListener { choosePicture() }
        view<Button>(R.id.clear_drawing).setOnClickListener { drawingView.clear() }
        view<Button>(R.id.swap_colours).setOnClickListener { drawingView.swapColours() }
        view<Spinner>(R.id.packages).onItemSelected { position ->
            val chosen = packages.getOrNull(position)
            if (chosen != null && chosen.folder != folder) {
                demo.shelf.dismissProblems()
                problems = emptyList()
                choosePackage(chosen)
            }
        }
        view<Spinner>(R.id.accelerators).onItemSelected { position ->
            val chosen = packages.find { it.folder == folder }?.accelerators?.getOrNull(position)
            if (chosen != null && chosen != accelerator) {
                accelerator = chosen
                select()
            }
        }
    }

    override fun onStart() {
        super.onStart()
        predictor.listener = this
        demo.shelf.listener = shelfListener
        demo.shelf.refresh()
        onOpened(predictor.opened)
    }

    override fun onResume() {
        super.onResume()
        isResumed = true
        feed()
    }

    override fun onPause() {
        isResumed = false
        stopCamera()
        super.onPause()
    }

    override fun onStop() {
        if (predictor.listener === this) predictor.listener = null
        if (demo.shelf.listener === shelfListener) demo.shelf.listener = null
        if (!isChangingConfigurations) predictor.close()
        super.onStop()
    }

    // The package and what it runs on

    private fun showPackages(content: Shelf.Content) {
        packages = content.packages
        problems = content.problems
        val wanted = content.newest ?: folder
        val chosen = packages.find { it.folder == wanted } ?: packages.firstOrNull()
        val spinner = view<Spinner>(R.id.packages)
        spinner.adapter = ArrayAdapter(this, android.R.layout.simple_spinner_dropdown_item, packages.map { it.title })
        spinner.setSelection(packages.indexOf(chosen))
        spinner.visibility = if (chosen == null) View.INVISIBLE else View.VISIBLE
        if (chosen == null) {
            folder = null
            isEmpty = true
            predictor.close()
        } else {
            isEmpty = false
            choosePackage(chosen)
        }
        showVerdict(predictor.opened)
    }

    private fun choosePackage(chosen: InstalledPackage) {
        if (chosen.folder != folder || accelerator !in chosen.accelerators) {
            accelerator = Accelerator.CPU // every package and phone has it
        }
        folder = chosen.folder
        preferences().edit().putString(FOLDER, chosen.folder.path).apply()
        val spinner = view<Spinner>(R.id.accelerators)
        spinner.adapter =
            ArrayAdapter(this, android.R.layout.simple_spinner_dropdown_item, chosen.accelerators.map { it.id })
        spinner.setSelection(chosen.accelerators.indexOf(accelerator))
        select()
    }

    private fun select() {
        folder?.let { predictor.select(Selection(it, accelerator)) }
    }

    override fun onOpened(opened: Opened) {
        val ready = opened as? Opened.Ready
        for (overlay in overlays) overlay.spec = ready?.modelPackage?.manifest?.input
        showVerdict(opened)
        showProblem(null)
        clearAnswer()
        val isRandom =
            ready
                ?.modelPackage
                ?.manifest
                ?.checkpoint
                ?.source == SEEDED
        view<TextView>(R.id.weights).setText(R.string.random_weights)
        view<TextView>(R.id.weights).visibility = if (isRandom) View.VISIBLE else View.GONE
        feed()
    }

    private fun showVerdict(opened: Opened) {
        val text =
            when (opened) {
                is Opened.Nothing -> getString(if (isEmpty) R.string.no_package else R.string.looking)
                is Opened.Opening -> getString(R.string.opening, accelerator.id)
                is Opened.Refused -> opened.problem
                is Opened.Ready -> resources.words(opened.verdict)
            }
        val isRefused = opened is Opened.Refused
        val isUnproven = opened is Opened.Ready && opened.verdict?.passed != true
        val verdict = view<TextView>(R.id.verdict)
        verdict.text = (problems + text).joinToString("\n")
        verdict.setTextColor(
            if (isRefused || isUnproven || problems.isNotEmpty()) {
                getColor(R.color.error)
            } else {
                view<TextView>(R.id.latency).currentTextColor
            },
        )
    }

    private fun showMenu(anchor: View) {
        val menu = PopupMenu(this, anchor)
        menu.inflate(R.menu.picture)
        for (id in listOf(R.id.remove_package, R.id.about)) menu.menu.findItem(id).isEnabled = folder != null
        menu.setOnMenuItemClickListener { item ->
            when (item.itemId) {
                R.id.add_package -> attempt { startActivityForResult(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), ADD) }
                R.id.remove_package -> attempt { removePackage() }
                R.id.about -> attempt { startActivity(screen(AboutActivity::class.java, AboutActivity.EXTRA_FOLDER)) }
                else -> attempt { startActivity(screen(BenchmarkActivity::class.java, BenchmarkActivity.EXTRA_FOLDER)) }
            }.onFailure { onProblem(it.inWords()) }
            true
        }
        menu.show()
    }

    private fun screen(
        activity: Class<out Activity>,
        extra: String,
    ) = Intent(this, activity).putExtra(extra, folder?.path)

    private fun addPackage(tree: Uri) {
        view<TextView>(R.id.verdict).setText(R.string.copying)
        demo.shelf.add(DocumentTree(applicationContext.contentResolver, tree))
    }

    private fun removePackage() {
        val removed = folder ?: return
        predictor.close()
        demo.shelf.remove(removed)
    }

    // The picture

    private fun changeSource() {
        predictor.forget()
        stopCamera()
        pictureView.picture = null
        showSource()
        showProblem(null)
        clearAnswer()
        askedForCamera = false
        feed()
    }

    private fun showSource() {
        val isPicture = sources.checkedRadioButtonId == R.id.picture
        val isDrawing = sources.checkedRadioButtonId == R.id.drawing
        pictureView.visibility = if (isDrawing) View.GONE else View.VISIBLE
        drawingView.visibility = if (isDrawing) View.VISIBLE else View.GONE
        view<View>(R.id.choose_picture).visibility = if (isPicture) View.VISIBLE else View.GONE
        view<View>(R.id.clear_drawing).visibility = if (isDrawing) View.VISIBLE else View.GONE
        view<View>(R.id.swap_colours).visibility = if (isDrawing) View.VISIBLE else View.GONE
    }

    /** Gives the source's picture to the network, if there are both. */
    private fun feed() {
        if (predictor.opened !is Opened.Ready) return
        when (sources.checkedRadioButtonId) {
            R.id.camera -> startCamera()
            R.id.picture -> predictPicture()
            R.id.drawing -> predictDrawing()
        }
    }

    private fun startCamera() {
        val ready = predictor.opened as? Opened.Ready ?: return
        val minSide = maxOf(ready.modelPackage.manifest.input.shorterSide, MIN_FRAME_SIDE)
        if (!isResumed || (camera?.minSide ?: 0) >= minSide) return
        if (checkSelfPermission(Manifest.permission.CAMERA) != PackageManager.PERMISSION_GRANTED) {
            askForCamera()
            return
        }
        stopCamera()
        val isShown = AtomicBoolean(true)
        val background = demo.background
        val predictor = predictor
        camera =
            CameraFeed(
                applicationContext,
                display(),
                minSide,
                onFrame = { frame ->
                    predictor.predict { frame }
                    if (isShown.getAndSet(false)) {
                        val bitmap = frame.toBitmap(MAX_SHOWN_SIDE)
                        background.post {
                            if (camera != null) pictureView.picture = bitmap
                            isShown.set(true)
                        }
                    }
                },
                onProblem = { problem -> background.post { if (camera != null) onProblem(problem) } },
            )
    }

    private fun stopCamera() {
        camera?.stop()
        camera = null
    }

    private fun askForCamera() {
        if (askedForCamera) {
            onProblem(getString(R.string.camera_denied))
        } else {
            askedForCamera = true
            requestPermissions(arrayOf(Manifest.permission.CAMERA), CAMERA)
        }
    }

    override fun onRequestPermissionsResult(
        requestCode: Int,
        permissions: Array<out String>,
        grantResults: IntArray,
    ) {
        if (requestCode == CAMERA) feed() // nothing before the screen is resumed, which follows
    }

    @Suppress("DEPRECATION") // what replaces it came with API 30
    private fun display(): Display = windowManager.defaultDisplay

    private fun choosePicture() {
        val open = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
        attempt { startActivityForResult(open, OPEN) }.onFailure { onProblem(it.inWords()) }
    }

    private fun choosePicture(chosen: Uri) {
        predictor.forget()
        picture = chosen
        clearAnswer()
        pictureView.picture = null // it is looked at once this screen is resumed, which follows
    }

    private fun predictPicture() {
        val chosen = picture ?: return
        val file = PictureFile(contentResolver, chosen)
        val background = demo.background
        predictor.predict { spec ->
            file.read(spec.shorterSide).also { pixels ->
                val bitmap = pixels.toBitmap(MAX_SHOWN_SIDE)
                background.post { showPicture(chosen, bitmap) }
            }
        }
    }

    private fun showPicture(
        shown: Uri,
        bitmap: Bitmap,
    ) {
        if (shown == picture && sources.checkedRadioButtonId == R.id.picture) pictureView.picture = bitmap
    }

    private fun predictDrawing() {
        if (sources.checkedRadioButtonId != R.id.drawing) return
        val ready = predictor.opened as? Opened.Ready ?: return
        predictor.forget()
        if (drawingView.strokes.isEmpty()) return clearAnswer()
        val drawn = drawingView.toPixels(ready.modelPackage.manifest.input.shorterSide)
        predictor.predict { drawn }
    }

    override fun onActivityResult(
        requestCode: Int,
        resultCode: Int,
        data: Intent?,
    ) {
        val uri = data?.data
        if (resultCode != RESULT_OK || uri == null) return
        when (requestCode) {
            OPEN -> choosePicture(uri)
            ADD -> addPackage(uri)
        }
    }

    // The answer

    override fun onAnswer(answer: Answer) {
        showProblem(null)
        val objects = answer.findings.filterIsInstance<DetectedObject>()
        val marks = objects.map { Overlay.Mark(answer.placement.toPicture(it.box), "${label(it)} ${percent(it)}") }
        for (overlay in overlays) overlay.marks = marks
        val surest = answer.findings.take(SHOWN)
        val rows = view<LinearLayout>(R.id.findings)
        while (rows.childCount < surest.size) layoutInflater.inflate(R.layout.finding, rows)
        while (rows.childCount > surest.size) rows.removeViewAt(rows.childCount - 1)
        surest.forEachIndexed { index, finding ->
            val row = rows.getChildAt(index)
            row.child<TextView>(R.id.label).text = label(finding)
            row.child<TextView>(R.id.score).text = percent(finding)
        }
        view<View>(R.id.nothing_found).visibility = if (surest.isEmpty()) View.VISIBLE else View.GONE
        view<TextView>(R.id.latency).text =
            getString(R.string.latency, answer.inferenceMs, accelerator.id, answer.preprocessingMs)
    }

    private fun label(finding: Finding): String {
        val labels = (predictor.opened as? Opened.Ready)?.modelPackage?.labels
        return labels?.getOrNull(finding.classIndex) ?: getString(R.string.class_index, finding.classIndex)
    }

    private fun percent(finding: Finding): String = getString(R.string.percent, finding.score * PERCENT)

    override fun onProblem(problem: String) {
        showProblem(problem)
        clearAnswer()
    }

    private fun clearAnswer() {
        for (overlay in overlays) overlay.marks = emptyList()
        view<LinearLayout>(R.id.findings).removeAllViews()
        view<View>(R.id.nothing_found).visibility = View.GONE
        view<TextView>(R.id.latency).text = ""
    }

    private fun showProblem(problem: String?) {
        val text = view<TextView>(R.id.problem)
        text.text = problem.orEmpty()
        text.visibility = if (problem == null) View.GONE else View.VISIBLE
    }

    private fun preferences() = getSharedPreferences("choice", MODE_PRIVATE)

    private companion object {
        const val SEEDED = "seeded"
        const val FOLDER = "folder"
        const val ACCELERATOR = "accelerator"
        const val SOURCE = "source"
        const val PICTURE = "picture"
        const val ASKED = "asked"
        const val STROKES = "strokes"
        const val WHITE_ON_BLACK = "white_on_black"
        const val ADD = 1
        const val OPEN = 2
        const val CAMERA = 3
        const val MIN_FRAME_SIDE = 480 // for the eye; the network may need less
        const val MAX_SHOWN_SIDE = 1280
        const val SHOWN = 5
        const val PERCENT = 100
    }
}

private fun Spinner.onItemSelected(select: (Int) -> Unit) {
    onItemSelectedListener =
        object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(
                parent: AdapterView<*>?,
                view: View?,
                position: Int,
                id: Long,
            ) = select(position)

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
}
