plugins {
    alias(libs.plugins.android.library)
}

android {
    namespace = "org.dmf.classifier"
    compileSdk = libs.versions.targetSdk.get().toInt()

    defaultConfig {
        minSdk = libs.versions.minSdk.get().toInt()
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    testOptions {
        unitTests.all {
            // what the tests read, and where they write what the Python tests read
            it.systemProperty("dmf.fixtures", rootDir.resolve("../tests/fixtures").path)
            it.systemProperty("dmf.report", layout.buildDirectory.file("latency.json").get().asFile.path)
        }
    }
}

dependencies {
    implementation(libs.litert)
    implementation(libs.litert.gpu)
    implementation(libs.litert.gpu.api)
    implementation(libs.onnxruntime)

    testImplementation(libs.junit)
    testImplementation(libs.json) // Android's own is a stub on the JVM
}
