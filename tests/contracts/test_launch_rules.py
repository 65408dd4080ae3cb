"""The rules of ROS 2 launch 3.7.1 that the embedded engine keeps, each with a file that breaks or uses it."""

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hardware.errors import BadInput, NotFoundError
from robo_rl.launch_engine import files, resolve
from robo_rl.launch_engine.parse import load
from robo_rl.launch_engine.resolve import Message, Process, Stop
from robo_rl.launch_engine.substitutions import Context, parse_template, perform, split_command


def written(folder: Path, actions: list[Any], name: str = "x.launch.yaml") -> Path:
    file = folder / name
    file.write_text(yaml.safe_dump({"launch": actions}, sort_keys=False))
    return file


def effects(folder: Path, actions: list[Any], **configurations: str) -> list[Any]:
    description = load(written(folder, actions))
    context = Context(configurations, {"PATH": "/usr/bin:/bin", "HOME": "/h"}, description.file, random.Random(1))
    return [e for _, e in resolve.plan(description, context)]


def messages(folder: Path, actions: list[Any], **configurations: str) -> list[str]:
    return [e.text for e in effects(folder, actions, **configurations) if isinstance(e, Message)]


def only_process(folder: Path, body: dict[str, Any], **configurations: str) -> Process:
    (process,) = effects(folder, [{"executable": body}], **configurations)
    return process


def log(text: str, **more: Any) -> dict[str, Any]:
    return {"log": {"message": text, **more}}


# --- types and keys ------------------------------------------------------------------------------------------------

EXE = {"cmd": "true"}
REFUSED = {
    "default is a number": ({"arg": {"name": "a", "default": 5}}, r"launch\[0\]\.arg\.default: expected a string"),
    "value is a boolean": ({"let": {"name": "a", "value": True}}, r"let\.value: .*string.*in quotes"),
    "if is a boolean": ({"log": {"message": "m", "if": True}}, r"log\.if: .*string"),
    "respawn is a boolean": ({"executable": {**EXE, "respawn": True}}, r"executable\.respawn: .*string"),
    "scoped is a string": ({"group": {"scoped": "true", "children": []}}, r"group\.scoped: .*without quotes"),
    "respawn_delay is an integer": ({"executable": {**EXE, "respawn_delay": 2}}, r"respawn_delay: .*decimal point"),
    "respawn_delay is a string": ({"executable": {**EXE, "respawn_delay": "2"}}, r"respawn_delay: .*without quotes"),
    "period is an integer": ({"timer": {"period": 2, "children": []}}, r"timer\.period: .*decimal point"),
    "sigterm_timeout is a string": ({"executable": {**EXE, "sigterm_timeout": "2"}}, r"sigterm_timeout: "),
    "a negative delay": ({"executable": {**EXE, "respawn_delay": -1.0}}, r"respawn_delay: expected a duration"),
    "a period of nan": ({"timer": {"period": float("nan"), "children": []}}, r"period: expected a duration"),
    "unknown tag": ({"exec": EXE}, r"tag 'exec' not known; tags: arg, let"),
    "unknown key": ({"executable": {"command": "true"}}, r"key 'command' not known; keys: cmd, name, cwd"),
    "missing key": ({"executable": {"name": "n"}}, r"launch\[0\]\.executable: key 'cmd' is missing"),
    "choices instead of choice": ({"arg": {"name": "a", "choices": []}}, r"key 'choices' not known"),
    "choice without value": ({"arg": {"name": "a", "choice": ["x"]}}, r"arg\.choice\[0\]: expected the keys value"),
    "choice is empty": ({"arg": {"name": "a", "choice": []}}, r"choice: is empty"),
    "default outside choice": (
        {"arg": {"name": "a", "default": "z", "choice": [{"value": "x"}]}},
        r"arg\.default: 'z' is not one of x",
    ),
    "choice value is a number": ({"arg": {"name": "a", "choice": [{"value": 1}]}}, r"choice\[0\]\.value: .*string"),
    "env is a mapping": ({"executable": {**EXE, "env": {"A": "b"}}}, r"executable\.env: expected a list of \{name"),
    "env value is a number": ({"executable": {**EXE, "env": [{"name": "A", "value": 1}]}}, r"env\[0\]\.value: "),
    "cmd is a list": ({"executable": {"cmd": ["ls", "-l"]}}, r"executable\.cmd: expected one string"),
    "cmd is empty": ({"executable": {"cmd": "  "}}, r"executable\.cmd: is empty"),
    "on_exit with another word": ({"executable": {**EXE, "on_exit": "restart"}}, r"on_exit: expected shutdown"),
    "on_exit with actions": ({"executable": {**EXE, "on_exit": [{"shutdown": {}}]}}, r"on_exit: expected a string"),
    "if and unless": (log("m", **{"if": "1", "unless": "1"}), r"'if' and 'unless' exclude each other"),
    "log with a level": (log("m", level="WARN"), r"key 'level' is not in the embedded subset"),
    "shell": ({"executable": {**EXE, "shell": True}}, r"key 'shell' is not in the embedded subset.*--engine ros"),
    "group that does not forward": ({"group": {"forwarding": False, "children": []}}, r"key 'forwarding' is not in"),
    "node": ({"node": {"pkg": "p", "exec": "e"}}, r"tag 'node' needs ROS 2 launch \(--engine ros\)"),
    "push_ros_namespace": ({"push_ros_namespace": {"namespace": "a"}}, r"needs ROS 2 launch"),
    "set_parameter": ({"set_parameter": {"name": "a", "value": "b"}}, r"needs ROS 2 launch"),
    "reset": ({"reset": {}}, r"needs ROS 2 launch"),
    "eval": (log("$(eval 1+1)"), r"log\.message: substitution 'eval' is refused: it runs Python code"),
    "command": (log("$(command 'ls')"), r"substitution 'command' is refused: it runs a program"),
    "find-pkg-share": (log("$(find-pkg-share p)"), r"needs ROS 2 launch"),
    "equals, which Humble lacks": (log("$(equals a b)"), r"'equals' is refused: ROS 2 Humble lacks it"),
    "unknown substitution": (log("$(vra a)"), r"substitution 'vra' not known; substitutions: and, anon"),
    "too many arguments": (log("$(not a b)"), r"'not' takes 1 arguments, got 2"),
    "not closed": (log("$(var a"), r"is not closed"),
    "two blanks between arguments": (log("$(env A  b)"), r"empty argument"),
    "a plain dollar sign": (log("5 $"), r"a plain '\$' must be written"),
    "quotes around a substitution in cmd": ({"executable": {"cmd": 'echo "$(var a)"'}}, r"quotes cannot span"),
    "two tags in one item": ({"log": {"message": "m"}, "let": {}}, r"launch\[0\]: expected one 'tag: \.\.\.'"),
    "children are not a list": ({"group": {"children": "x"}}, r"group\.children: expected a list of actions"),
    "a key deep inside": (
        {"group": [{"timer": {"period": 1.0, "children": [{"log": {"msg": "x"}}]}}]},
        r"launch\[0\]\.group\.children\[0\]\.timer\.children\[0\]\.log: key 'msg' not known",
    ),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.replace(" ", "-"))
def test_refuses_with_file_and_key(tmp_path: Path, case: str) -> None:
    action, message = REFUSED[case]
    with pytest.raises(BadInput, match=message) as e:
        load(written(tmp_path, [action]))
    assert str(e.value).startswith("x.launch.yaml: launch[0]")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("launch: {a: 1}", "expected a list of actions"),
        ("lunch: []", "expected the one key 'launch'"),
        ("launch: []\nversion: '1'", "expected the one key 'launch'"),
        ("", "expected the one key 'launch'"),
        ("launch: [", "not YAML"),
        ("launch: !!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_refuses_a_file_of_another_shape(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.launch.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=message) as e:
        load(file)
    assert "\n" not in str(e.value)


# --- arguments and conditions --------------------------------------------------------------------------------------


def test_arg_takes_default_given_value_and_checks_choice(tmp_path: Path) -> None:
    actions = [{"arg": {"name": "m", "default": "a", "choice": [{"value": "a"}, {"value": "b"}]}}, log("$(var m)")]
    assert messages(tmp_path, actions) == ["a"]
    assert messages(tmp_path, actions, m="b") == ["b"]
    with pytest.raises(BadInput, match=r"launch\[0\]\.arg: argument 'm' cannot be 'c'; choices: a, b"):
        messages(tmp_path, actions, m="c")


def test_required_argument_is_named_with_its_description(tmp_path: Path) -> None:
    actions = [{"arg": {"name": "policy", "description": "File to fly."}}]
    with pytest.raises(BadInput, match=r"'policy' is required: give policy:=VALUE \(File to fly\.\)"):
        messages(tmp_path, actions)


def test_default_may_use_earlier_arguments(tmp_path: Path) -> None:
    actions = [
        {"arg": {"name": "a", "default": "1"}},
        {"arg": {"name": "b", "default": "$(var a)2"}},
        log("$(var b)"),
    ]
    assert messages(tmp_path, actions) == ["12"]


@pytest.mark.parametrize(
    ("word", "truth"), [("true", True), ("1", True), ("True ", True), ("false", False), ("0", False)]
)
def test_conditions(tmp_path: Path, word: str, truth: bool) -> None:
    actions = [log("if", **{"if": word}), log("unless", unless=word)]
    assert messages(tmp_path, actions) == (["if"] if truth else ["unless"])


@pytest.mark.parametrize("word", ["yes", "on", "2", ""])
def test_conditions_accept_nothing_else(tmp_path: Path, word: str) -> None:
    with pytest.raises(BadInput, match="is not one of true, false, 1, 0"):
        messages(tmp_path, [log("m", **{"if": word})])


def test_logic_accepts_booleans_only(tmp_path: Path) -> None:
    actions = [
        log("$(and true false) $(or true false) $(not true) $(and $(not false) true)"),
    ]
    assert messages(tmp_path, actions) == ["false true false true"]
    with pytest.raises(BadInput, match="'1' is not a boolean"):
        messages(tmp_path, [log("$(not 1)")])
    with pytest.raises(BadInput, match=r"'\[' is not a boolean"):
        messages(tmp_path, [log("$(not [)")])


def test_a_choice_becomes_conditions_without_eval_or_equals(tmp_path: Path) -> None:
    """The idiom of the shipped files: a `let` whose name is made from the argument's value."""
    actions = [
        {"arg": {"name": "mode", "default": "real"}},
        {"let": {"name": "is_emulated", "value": "false"}},
        {"let": {"name": "is_real", "value": "false"}},
        {"let": {"name": "is_$(var mode)", "value": "true"}},
        log("emulated", **{"if": "$(var is_emulated)"}),
        log("real", **{"if": "$(var is_real)"}),
    ]
    assert messages(tmp_path, actions) == ["real"]
    assert messages(tmp_path, actions, mode="emulated") == ["emulated"]


# --- scopes --------------------------------------------------------------------------------------------------------


def test_let_leaks_out_of_an_include_and_arguments_leak_in(tmp_path: Path) -> None:
    written(
        tmp_path,
        [{"arg": {"name": "speed", "default": "1"}}, {"let": {"name": "inner", "value": "$(var speed)"}}],
        "inner.launch.yaml",
    )
    include = {"include": {"file": "$(dirname)/inner.launch.yaml", "arg": [{"name": "speed", "value": "9"}]}}
    assert messages(tmp_path, [include, log("$(var inner) $(var speed)")]) == ["9 9"]
    plain = {"include": {"file": "$(dirname)/inner.launch.yaml"}}
    assert messages(tmp_path, [{"let": {"name": "speed", "value": "7"}}, plain, log("$(var inner)")]) == ["7"]


def test_group_keeps_configurations_and_environment_to_itself(tmp_path: Path) -> None:
    body = [
        {"let": {"name": "a", "value": "in"}},
        {"set_env": {"name": "E", "value": "in"}},
        {"unset_env": {"name": "HOME"}},
    ]
    look = log("$(var a) $(env E none) $(env HOME none)")
    before = {"let": {"name": "a", "value": "out"}}
    assert messages(tmp_path, [before, {"group": [*body, look]}, look]) == ["in in none", "out none /h"]
    unscoped = {"group": {"scoped": False, "children": body}}
    assert messages(tmp_path, [before, unscoped, look]) == ["in in none"]


def test_group_with_a_false_condition_does_nothing(tmp_path: Path) -> None:
    assert messages(tmp_path, [{"group": {"if": "false", "children": [log("m")]}}]) == []


def test_timer_sees_the_configurations_of_the_moment_it_fires(tmp_path: Path) -> None:
    timer = {"timer": {"period": 1.0, "children": [log("$(var a)")]}}
    assert messages(tmp_path, [{"let": {"name": "a", "value": "1"}}, timer, {"let": {"name": "a", "value": "2"}}]) == [
        "2"
    ]
    with pytest.raises(BadInput, match="launch configuration 'a' does not exist"):
        messages(tmp_path, [{"group": [{"let": {"name": "a", "value": "1"}}, timer]}])


def test_timers_are_ordered_by_time_and_nested_ones_add_up(tmp_path: Path) -> None:
    inner = {"timer": {"period": 0.5, "children": [log("1.5")]}}
    actions = [
        {"timer": {"period": 2.0, "children": [log("2.0")]}},
        {"timer": {"period": 1.0, "children": [log("1.0"), inner]}},
    ]
    assert messages(tmp_path, actions) == ["1.0", "1.5", "2.0"]


def test_shutdown_ends_the_plan(tmp_path: Path) -> None:
    found = effects(tmp_path, [{"shutdown": {"reason": "done"}}, log("never")])
    assert found == [Stop("done")]
    assert effects(tmp_path, [{"shutdown": None}]) == [Stop("reason not given")]


def test_dirname_and_filename_follow_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    inner = written(tmp_path / "sub", [log("$(dirname)|$(filename)")], "inner.launch.yaml")
    found = messages(tmp_path, [{"include": {"file": "$(dirname)/sub/inner.launch.yaml"}}, log("$(dirname)")])
    assert found == [f"{tmp_path}/sub|{inner}", str(tmp_path)]


def test_a_file_that_includes_itself_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"x\.launch\.yaml: includes are nested more than 50 deep"):
        effects(tmp_path, [{"include": {"file": "$(dirname)/x.launch.yaml"}}])


def test_many_includes_one_after_another_are_not_deep(tmp_path: Path) -> None:
    written(tmp_path, [log("here")], "inner.launch.yaml")
    assert messages(tmp_path, [{"include": {"file": "$(dirname)/inner.launch.yaml"}}] * 60) == ["here"] * 60


def test_an_error_in_an_include_names_both_files(tmp_path: Path) -> None:
    written(tmp_path, [{"lett": {}}], "inner.launch.yaml")
    with pytest.raises(
        BadInput, match=r"^x\.launch\.yaml: launch\[0\]\.include: inner\.launch\.yaml: launch\[0\]\.lett: tag"
    ):
        effects(tmp_path, [{"include": {"file": "$(dirname)/inner.launch.yaml"}}])
    with pytest.raises(BadInput, match=r"nowhere\.launch\.yaml: No such file"):
        effects(tmp_path, [{"include": {"file": "$(dirname)/nowhere.launch.yaml"}}])


# --- substitutions and commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cmd", "argv"),
    [
        ("echo a  b\tc", ["echo", "a", "b", "c"]),
        ("echo $(var two)", ["echo", "two words"]),
        ("echo x$(var two)y z", ["echo", "xtwo wordsy", "z"]),
        ("$(var two) $(var two)", ["two words", "two words"]),
        ("echo --a=$(var none) b", ["echo", "--a=", "b"]),
        ("echo $(var none) b", ["echo", "", "b"]),
        ("echo 'a b' c", ["echo", "a b", "c"]),
        ('echo "a b"$(var two)', ["echo", "a btwo words"]),
        ("echo $(env NOT_SET 'a b')", ["echo", "a b"]),
        ("echo $(env NOT_SET $(var two))", ["echo", "two words"]),
        ("echo $(var $(var name))", ["echo", "two words"]),
        (r"echo \$HOME", ["echo", "$HOME"]),
        ("echo __ns:=/$(var name) -r a:=b", ["echo", "__ns:=/two", "-r", "a:=b"]),
    ],
)
def test_cmd_is_split_before_substitution(tmp_path: Path, cmd: str, argv: list[str]) -> None:
    process = only_process(tmp_path, {"cmd": cmd}, two="two words", none="", name="two")
    assert list(process.argv) == argv


word = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="$\\'\"()"), min_size=1)


@given(st.lists(word, min_size=1, max_size=5), st.text())
def test_splitting_gives_back_joined_words_and_keeps_values_whole(words: list[str], value: str) -> None:
    templates = split_command(" ".join([*words, "$(var v)"]))
    context = Context({"v": value}, {}, Path("/x.launch.yaml"))
    assert [perform(t, context) for t in templates] == [*words, value]


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any string either parses or is refused with one line."""
    with contextlib.suppress(BadInput):
        parse_template(text)


def test_missing_names_are_errors(tmp_path: Path) -> None:
    for text, message in (
        ("$(var a)", "launch configuration 'a' does not exist"),
        ("$(env NOT_SET)", "environment variable 'NOT_SET' does not exist"),
        ("$(find-exec no-such-program)", "executable 'no-such-program' not found on the PATH"),
    ):
        with pytest.raises(BadInput, match=rf"x\.launch\.yaml: launch\[0\]\.log: {message}"):
            messages(tmp_path, [log(text)])


def test_find_exec_and_anon(tmp_path: Path) -> None:
    found, first, again, other = messages(
        tmp_path, [log("$(find-exec sh)"), log("$(anon a)"), log("$(anon a)"), log("$(anon b)")]
    )
    assert found in ("/usr/bin/sh", "/bin/sh")
    assert first == again != other
    assert first.startswith("a_")


def test_an_executable_s_keys_reach_the_process(tmp_path: Path) -> None:
    process = only_process(
        tmp_path,
        {
            "cmd": "/bin/echo x",
            "name": "n$(var a)",
            "cwd": "$(dirname)",
            "output": "screen",
            "env": [{"name": "K$(var a)", "value": "$(var a)"}],
            "respawn": "true",
            "respawn_delay": 0.5,
            "on_exit": "shutdown",
            "sigterm_timeout": 1.5,
            "sigkill_timeout": 2.5,
        },
        a="1",
    )
    assert process == Process(
        name="n1",
        argv=("/bin/echo", "x"),
        environment={"PATH": "/usr/bin:/bin", "HOME": "/h", "K1": "1"},
        where="x.launch.yaml: launch[0].executable",
        cwd=str(tmp_path),
        output="screen",
        respawn=True,
        respawn_delay_s=0.5,
        shutdown_on_exit=True,
        sigterm_s=1.5,
        sigkill_s=2.5,
    )


def test_defaults_of_an_executable(tmp_path: Path) -> None:
    process = only_process(tmp_path, {"cmd": "/bin/echo x"})
    assert (process.name, process.output, process.respawn, process.sigterm_s, process.sigkill_s) == (
        "echo",
        "log",
        False,
        5.0,
        5.0,
    )
    assert only_process(tmp_path, {"cmd": "echo"}, sigterm_timeout="0.5").sigterm_s == 0.5
    with pytest.raises(BadInput, match="sigterm_timeout 'soon' is not a duration"):
        only_process(tmp_path, {"cmd": "echo"}, sigterm_timeout="soon")
    with pytest.raises(BadInput, match="output 'tty' not known; outputs: screen, log, both, own_log, full"):
        only_process(tmp_path, {"cmd": "echo", "output": "tty"})


# --- command line --------------------------------------------------------------------------------------------------


def test_arguments_are_listed_with_those_of_includes(tmp_path: Path) -> None:
    written(tmp_path, [{"arg": {"name": "deep", "description": "Deep."}}], "inner.launch.yaml")
    description = load(
        written(
            tmp_path,
            [
                {"arg": {"name": "a", "default": "$(env HOME)/x", "choice": [{"value": "p"}]}},
                {"group": {"if": "false", "children": [{"include": {"file": "$(dirname)/inner.launch.yaml"}}]}},
            ],
        )
    )
    found = resolve.arguments_of(description, Context({}, {}, description.file))
    assert [(a.name, a.default, a.choices) for a in found] == [("a", "$(env HOME)/x", ("p",)), ("deep", None, ())]
    text = files.describe_arguments(found)
    assert "No description given. One of: p." in text
    assert "(required)" in text


def test_unknown_argument_lists_what_exists() -> None:
    with pytest.raises(NotFoundError, match=r"launch argument 'modee' not found; known: mode, rate"):
        files.check_known({"modee": "x"}, ["rate", "mode"])
    files.check_known({"sigterm_timeout": "1"}, [])


def test_words_must_be_assignments() -> None:
    assert files.given_arguments(["a:=1", "b:=x:=y", "c:="]) == {"a": "1", "b": "x:=y", "c": ""}
    for bad in (["a=1"], ["a"], [":=1"]):
        with pytest.raises(BadInput, match="is not of the form key:=value"):
            files.given_arguments(bad)
    with pytest.raises(BadInput, match="given twice"):
        files.given_arguments(["a:=1", "a:=2"])


def test_files_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "launch").mkdir()
    here = written(tmp_path / "launch", [], "train.launch.yaml")
    explicit = written(tmp_path, [], "train")
    assert files.find("./train") == explicit
    assert files.find(str(here)) == here
    explicit.unlink()
    assert files.find("train") == here
    assert files.find("train.launch.yaml") == here
    here.unlink()
    monkeypatch.setattr(files.sys, "prefix", str(tmp_path / "prefix"))
    share = tmp_path / "prefix" / "share" / "robo_rl" / "launch"
    share.mkdir(parents=True)
    installed = written(share, [], "only-installed.launch.yaml")
    assert files.find("only-installed") == installed
    with pytest.raises(NotFoundError, match=r"launch file 'nosuch' not found; known: .*only-installed"):
        files.find("nosuch")
