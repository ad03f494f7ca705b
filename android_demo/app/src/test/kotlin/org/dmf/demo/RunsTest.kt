package org.dmf.demo

import org.json.JSONObject
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.IOException

class RunsTest {
    @get:Rule val folder = TemporaryFolder()

    @Test
    fun `a result appears whole under its name`() {
        val runs = Runs(folder.root.resolve("runs"))
        runs.write("a", errorDocument("one \"line\""))
        assertArrayEquals(arrayOf("a.json"), folder.root.resolve("runs").list())
        val written = JSONObject(folder.root.resolve("runs/a.json").readText())
        assertEquals(mapOf("error" to "one \"line\""), written.keys().asSequence().associateWith(written::get))
    }

    @Test
    fun `an earlier result is forgotten`() {
        val runs = Runs(folder.root)
        runs.write("a", errorDocument("old"))
        runs.write("b", errorDocument("other"))
        runs.forget("a")
        assertArrayEquals(arrayOf("b.json"), folder.root.list())
    }

    @Test
    fun `a folder that cannot be written is told`() {
        val file = folder.newFile()
        assertThrows(IOException::class.java) { Runs(file).write("a", errorDocument("lost")) }
    }
}
