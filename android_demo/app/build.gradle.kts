plugins {
    alias(libs.plugins.android.application)
}

// Each package that dmf-export made in this folder becomes assets/packages/NAME; -Pdmf.packages=FOLDER names another.
val packages = rootDir.resolve(providers.gradleProperty("dmf.packages").getOrElse("../build/android-packages"))
val packageAssets = layout.buildDirectory.dir("package-assets")

val embedPackages = tasks.register<Sync>("embedPackages") {
    from(packages)
    into(packageAssets.map { it.dir("packages") })
}

android {
    namespace = "org.dmf.demo"
    compileSdk = libs.versions.targetSdk.get().toInt()

    defaultConfig {
        applicationId = "org.dmf.demo"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = libs.versions.appVersionCode.get().toInt()
        versionName = libs.versions.appVersionName.get()

        ndk {
            abiFilters += "arm64-v8a"
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    sourceSets.named("main") {
        assets.directories.add(packageAssets.get().asFile.path)
    }
}

tasks.named("preBuild") {
    dependsOn(embedPackages)
}

dependencies {
    implementation(project(":classifier"))

    testImplementation(libs.junit)
    testImplementation(libs.json) // Android's own is a stub on the JVM
}
