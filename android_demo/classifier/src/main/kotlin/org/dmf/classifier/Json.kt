package org.dmf.classifier

import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject
import org.json.JSONTokener

/** [text] as one JSON object. PackageError: it is not one. */
internal fun parseObject(
    text: String,
    source: String,
): JSONObject {
    val tokener = JSONTokener(text)
    val value =
        try {
            tokener.nextValue().also { if (tokener.nextClean() != END) throw tokener.syntaxError("text after its end") }
        } catch (error: JSONException) {
            throw PackageError("$source: not valid JSON: ${error.oneLine()}; $EXPORT_AGAIN", error)
        } catch (error: StackOverflowError) {
            throw PackageError("$source: not valid JSON: nested too deeply; $EXPORT_AGAIN", error)
        }
    return value as? JSONObject
        ?: throw PackageError("$source: $: is ${shown(value)}, must be an object; $EXPORT_AGAIN")
}

/** Reads the fields of one object of a document; every error names the field's JSON path. */
internal class JsonFields(
    private val json: JSONObject,
    private val source: String,
    private val path: String = "$",
) {
    fun text(name: String): String = field(name, "text") { it as? String }

    fun textOrNull(name: String): String? = unlessNull(name) { field(name, "text or null") { it as? String } }

    fun text(
        name: String,
        allowed: String,
        pattern: Regex,
    ): String = field(name, allowed) { (it as? String)?.takeIf(pattern::matches) }

    fun flag(name: String): Boolean = field(name, "true or false") { it as? Boolean }

    fun flagOrNull(name: String): Boolean? = unlessNull(name) { field(name, "true, false or null") { it as? Boolean } }

    fun long(
        name: String,
        min: Long = 0,
    ): Long = field(name, "an integer >= $min") { value -> integer(value)?.takeIf { it >= min } }

    fun longOrNull(name: String): Long? = unlessNull(name) { field(name, "an integer or null") { integer(it) } }

    fun int(
        name: String,
        min: Int,
    ): Int = field(name, "an integer >= $min") { value -> int32(value)?.takeIf { it >= min } }

    fun number(name: String): Double = field(name, "a number") { number(it) }

    fun share(name: String): Double =
        field(name, "a number from 0 to 1") { value -> number(value)?.takeIf { it in 0.0..1.0 } }

    /** The one of [choices] whose [id] the field holds. */
    fun <T : Any> choice(
        name: String,
        choices: List<T>,
        id: (T) -> String,
    ): T {
        val ids = choices.map(id)
        return field(name, ids.singleOrNull() ?: "one of ${ids.joinToString()}") { found ->
            choices.find { id(it) == found }
        }
    }

    fun ints(
        name: String,
        allowed: String,
        accept: (List<Int>) -> Boolean,
    ): List<Int> = field(name, allowed) { value -> elements(value, ::int32)?.takeIf(accept) }

    fun intsOrNull(
        name: String,
        allowed: String,
        accept: (List<Int>) -> Boolean,
    ): List<Int>? = unlessNull(name) { ints(name, allowed, accept) }

    fun numbers(
        name: String,
        allowed: String,
        accept: (List<Double>) -> Boolean,
    ): List<Double> = field(name, allowed) { value -> elements(value, ::number)?.takeIf(accept) }

    fun texts(name: String): List<String> =
        field(name, "a list of texts") { value -> elements(value) { it as? String } }

    fun fields(name: String): JsonFields = fields(name, "an object")

    fun fieldsOrNull(name: String): JsonFields? = unlessNull(name) { fields(name, "an object or null") }

    fun listOfFields(name: String): List<JsonFields> =
        field(name, "a list of at least one object") { value ->
            elements(value) { it as? JSONObject }?.takeIf { it.isNotEmpty() }
        }.mapIndexed { index, element -> JsonFields(element, source, "$path.$name[$index]") }

    /** PackageError: the field is not null. */
    fun nothing(name: String) {
        unlessNull(name) { field<Any>(name, "null") { null } }
    }

    /** PackageError: the field is not an empty list. */
    fun emptyList(
        name: String,
        allowed: String,
    ) {
        field(name, allowed) { value -> (value as? JSONArray)?.takeIf { it.length() == 0 } }
    }

    /** The value of a field, where [read] makes one of it. PackageError: it makes none, or there is no such field. */
    fun <T : Any> field(
        name: String,
        allowed: String,
        read: (Any) -> T?,
    ): T {
        val found: Any? = json.opt(name)
        return found?.let(read) ?: throw error(name, "is ${shown(found)}, must be $allowed; $EXPORT_AGAIN")
    }

    fun error(
        name: String,
        problem: String,
    ) = PackageError("$source: $path.$name: $problem")

    private fun fields(
        name: String,
        allowed: String,
    ) = JsonFields(field(name, allowed) { it as? JSONObject }, source, "$path.$name")

    private fun <T> unlessNull(
        name: String,
        read: () -> T,
    ): T? = if (json.has(name) && json.isNull(name)) null else read()
}

internal const val EXPORT_AGAIN = "export the package again"

private const val SHOWN_CHARACTERS = 80
private const val END = '\u0000'

private fun shown(found: Any?): String {
    val text = if (found is String) JSONObject.quote(found) else found?.toString() ?: return "missing"
    return if (text.length <= SHOWN_CHARACTERS) text else text.take(SHOWN_CHARACTERS) + "..."
}

private fun integer(value: Any): Long? = if (value is Int || value is Long) (value as Number).toLong() else null

private fun int32(value: Any): Int? = value as? Int

private fun number(value: Any): Double? = (value as? Number)?.toDouble()?.takeIf { it.isFinite() }

private fun <T : Any> elements(
    value: Any,
    read: (Any) -> T?,
): List<T>? {
    val array = value as? JSONArray ?: return null
    return (0 until array.length()).map { read(array[it]) ?: return null }
}
