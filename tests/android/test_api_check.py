"""All that the app uses is in API level 36."""

import pytest

from android_demo.host.api_check import check_api
from android_demo.host.class_file import Member, read_folder
from android_demo.host.compiler import compile_java
from android_demo.host.project import kotlin_sources, read_versions


@pytest.fixture(scope="module")
def use(toolchain, classes):
    """Of the whole app."""
    return check_api(toolchain, [classes.classifier, classes.app])


def test_the_app_uses_what_there_is(use):
    assert use.missing == ()
    assert use.class_count >= len(kotlin_sources("classifier")) + len(kotlin_sources("app")) - 2
    assert use.reference_count > 100


# What the app uses and level 23 lacks: a member, or all of a class, and the level it came with.
SINCE = {
    "android/graphics/Insets": 29,
    "android/media/ExifInterface.<init>(Ljava/io/InputStream;)V": 24,
    "android/os/Build.SOC_MODEL": 31,
    "android/os/PowerManager.getCurrentThermalStatus()I": 29,
    "android/view/WindowInsets$Type": 30,
    "android/view/WindowInsets.getInsets(I)Landroid/graphics/Insets;": 30,
}


def test_what_is_newer_than_the_oldest_phone_is_used_where_the_version_is_asked_for(use, classes):
    """In the same class, that is; where in it, a reader checks."""
    own = read_folder(classes.classifier) | read_folder(classes.app)
    version = Member("android/os/Build$VERSION", "SDK_INT", "I")
    known = set()
    for user, member in (each.split(": ") for each in use.newer):
        of = member if member in SINCE else member.split(".")[0]
        assert of in SINCE, f"{user} uses {member}; say in SINCE with which API level it came"
        known.add(of)
        assert SINCE[of] <= read_versions().min_sdk or version in own[user].members, f"{user} uses {member} unguarded"
    assert known == set(SINCE)


STUB = """package android.os;

public class Build {
    public static String SOC_MODEL, COLOUR;

    public static String getSerial() { return null; }

    public static String getSerial(int slot) { return null; }

    public static class Moods { }
}
"""


@pytest.fixture
def check(toolchain, tmp_path):
    """Checks a Java class compiled against a stub of what Android might have."""

    def check_text(java):
        stub, source = tmp_path / "Build.java", tmp_path / "Sample.java"
        stub.write_text(STUB)
        source.write_text(java)
        compile_java([stub], [], tmp_path / "stubs")
        compile_java([source], [tmp_path / "stubs", toolchain.android_without_java], tmp_path / "classes")
        return check_api(toolchain, [tmp_path / "classes"])

    return check_text


def test_what_newer_levels_have_is_accepted_and_listed(check):
    use = check("class Sample { String f() { return android.os.Build.SOC_MODEL + android.os.Build.getSerial(); } }")
    assert use.missing == ()
    assert use.newer == (
        "Sample: android/os/Build.SOC_MODEL",
        "Sample: android/os/Build.getSerial()Ljava/lang/String;",
    )


@pytest.mark.parametrize(
    ("used", "lacking"),
    [
        ("android.os.Build.COLOUR", "no android/os/Build.COLOUR"),
        ("android.os.Build.getSerial(1)", "no android/os/Build.getSerial(I)Ljava/lang/String;"),
        ("new android.os.Build.Moods()", "no class android/os/Build$Moods"),
        ("new javax.swing.JLabel[1]", "no class javax/swing/JLabel"),  # which Java 8 has
    ],
)
def test_what_there_is_not_is_told(check, used, lacking):
    assert f"Sample: {lacking}" in check(f"class Sample {{ Object f() {{ return {used}; }} }}").missing


@pytest.mark.parametrize(("name", "missing"), [("hasWindowFocus", False), ("hasWindowMood", True)])
def test_an_inherited_member_is_looked_up_where_it_comes_from(toolchain, tmp_path, name, missing):
    (tmp_path / "Activity.java").write_text(
        f"package android.app; public class Activity {{ public boolean {name}() {{ return true; }} }}"
    )
    (tmp_path / "Screen.java").write_text(
        f"class Screen extends android.app.Activity {{ boolean f(Screen other) {{ return other.{name}(); }} }}"
    )
    compile_java([tmp_path / "Activity.java"], [], tmp_path / "stubs")
    compile_java([tmp_path / "Screen.java"], [tmp_path / "stubs"], tmp_path / "classes")
    missed = check_api(toolchain, [tmp_path / "classes"]).missing
    assert missed == (("Screen: no Screen.hasWindowMood()Z",) if missing else ())


def test_members_of_interfaces_and_python_s_own_words_are_found(check):
    assert (
        check("""
            interface Engine extends java.io.Closeable { }
            class Sample {
                void f(Engine engine, java.util.concurrent.CountDownLatch latch) throws Exception {
                    engine.close();
                    engine.hashCode();
                    latch.await();
                }
            }""").missing
        == ()
    )
