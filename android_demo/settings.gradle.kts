// With a JDK 17, Android's SDK of level 36 and Gradle 9.5 or later:
//   gradle test :app:assembleDebug        with Gradle 9.5 or later
// Without them, tests and an APK: python -m android_demo.host.build

pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode = RepositoriesMode.FAIL_ON_PROJECT_REPOS
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "android_demo"

include(":classifier", ":app")
