"""Settings as plain values and back, held to the argument parser's reading of the same words."""

from typing import Any

import pytest
import yaml

from fedpl.cli import make_parser, read
from fedpl.config import Config, with_changes
from fedpl.errors import UserError
from fedpl.method import Method
from fedpl.presets import baseline, names, preset, read_yaml
from fedpl.problems import check
from fedpl.server import Aggregator, FedBip, Softmax, Wiener
from fedpl.settings import build, changed, merged, plain

METHODS = names("method")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_by_its_name_is_the_same_by_every_way(name: str, tmp_path: Any) -> None:
    parser = make_parser("fit", "")
    wanted = Config.of(name)
    assert wanted.method == preset(name).method == baseline(name)
    assert wanted.name == name
    for words in ([f"--method={name}"], ["--method", name], ["--config", f"method/{name}"]):
        assert read(parser, words) == wanted
    (tmp_path / "mine.yaml").write_text(f"rounds: 3\nmethod: {name}\n")
    assert read(parser, [f"--config={tmp_path / 'mine.yaml'}"]) == with_changes(wanted, {"rounds": 3})
    assert Config.load(tmp_path / "mine.yaml") == with_changes(wanted, {"rounds": 3})


@pytest.mark.parametrize("name", METHODS)
def test_yaml_gives_the_same_configuration_back(name: str, tmp_path: Any) -> None:
    config = Config.of(name, client__lr=0.1, rounds=2)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert Config.load(path) == config
    assert read(make_parser("fit", ""), [f"--config={path}"]) == config


def test_a_method_by_its_name_leaves_nothing_of_another() -> None:
    """A method chosen over any other one is what it is over the default."""
    fresh = {name: Config.of(name) for name in METHODS}
    for one in METHODS:
        for other in METHODS:
            assert with_changes(fresh[one], {"method": other}) == fresh[other], (one, other)


def test_how_the_server_computes_is_kept_when_a_method_is_chosen() -> None:
    parser = make_parser("fit", "")
    config = read(parser, ["--config=partial", "--method=fedbip_g", "--aggregator.subject.precision=tf32"])
    assert config.aggregator.stale_discount == 0.5
    again = with_changes(config, {"method": "fedbip"}).aggregator
    assert (again.stale_discount, again.subject.precision, again.weighting) == (0.5, "tf32", FedBip())


def test_what_wins_over_what(tmp_path: Any) -> None:
    """Files, then the method that is named, then dotted options, wherever they stand."""
    (tmp_path / "a.yaml").write_text("aggregator: {granularity: block}\nname: mine\n")
    words = ["--method=fedbip", f"--config={tmp_path / 'a.yaml'}", "--aggregator.weighting.floor=0.5"]
    for argv in (words, [words[1], words[0], words[2]]):
        config = read(make_parser("fit", ""), argv)
        assert (config.name, config.aggregator.granularity) == ("fedbip", "model")
        assert config.aggregator.weighting == FedBip(floor=0.5)
    assert read(make_parser("fit", ""), ["--name=x", "--method=fedbip"]).name == "x"


def test_a_label_is_no_method() -> None:
    parser = make_parser("fit", "")
    with pytest.raises(UserError, match=r"no method 'banana' among apfl, .*--name"):
        read(parser, ["--method=banana"])
    with pytest.raises(UserError, match="did you mean 'fedbip_w'"):
        Config.of("fedbip_i")
    assert read(parser, ["--name=banana"]) == Config(name="banana")


def test_run_directories_from_before_have_the_label_under_method(tmp_path: Any) -> None:
    """They are complete: the method's file is not looked for."""
    tree = plain(Config(name="my_label", aggregator=Aggregator(weighting=Softmax())))
    tree["method"] = tree.pop("name")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    config = Config.load(path)
    assert (config.name, config.aggregator.weighting) == ("my_label", Softmax())
    assert read(make_parser("fit", ""), [f"--config={path}"]) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client.lr": 1}, ["--client.lr=1"]),
        ({"aggregator.weighting": "fedpl.server.Wiener"}, ["--aggregator.weighting=fedpl.server.Wiener"]),
        (
            {"aggregator.weighting.rank": 2, "aggregator.weighting": "Wiener"},
            ["--aggregator.weighting=fedpl.server.Wiener", "--aggregator.weighting.rank=2"],
        ),
        (
            {"aggregator.weighting.class_path": "fedpl.server.Softmax"},
            ["--aggregator.weighting=fedpl.server.Softmax"],
        ),
        ({"client.per_client": {"a": {"rate": 0.5}}}, ["--client.per_client={a: {rate: 0.5}}"]),
        ({"lora.layers_to_transform": [1, 2]}, ["--lora.layers_to_transform=[1,2]"]),
        ({"store_vectors": "bf16"}, ["--store_vectors=bf16"]),
        ({"store_vectors": True}, ["--store_vectors=true"]),
        ({"baselines": ["ditto"]}, ["--baselines=[ditto]"]),
        ({"data.conventions": 1}, ["--data.conventions=1"]),
    ],
)
def test_changes_mean_what_they_mean_on_the_command_line(changes: dict[str, Any], words: list[str]) -> None:
    assert with_changes(Config(), changes) == read(make_parser("fit", ""), words)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client.lrr": 1}, "client.lrr: there is no such setting; did you mean 'client.lr'"),
        ({"roundz": 1}, "roundz: there is no such setting; did you mean 'rounds'"),
        ({"client.lr.x": 1}, "client.lr.x: there is no such setting"),
        ({"rounds": 1.5}, "rounds: expected a whole number, got 1.5"),
        ({"rounds": True}, "rounds: expected a whole number, got True"),
        ({"rounds": None}, "rounds: expected a whole number, got None"),
        ({"model.pooling": "maxx"}, "model.pooling: expected mean, first, last, got 'maxx'"),
        ({"lora.layers_to_transform": 3}, "lora.layers_to_transform: expected a list"),
        ({"aggregator.weighting": "fedpl.server.FedBib"}, "did you mean 'fedpl.server.FedBip'"),
        ({"aggregator.weighting": "fedpl.server.Cosine"}, "is no Weighting"),
        ({"aggregator.weighting": "os.system"}, "is no Weighting"),
        ({"aggregator.weighting": 3}, "aggregator.weighting: expected class_path"),
        ({"aggregator.weighting.flor": 3}, "did you mean 'aggregator.weighting.floor'"),
        ({"aggregator": {"weighting": {"class_path": "FedBip", "floor": 1}}}, "only init_args"),
        ({"client.per_client": {"a": {"rat": 0.5}}}, "client.per_client.a.rat: there is no such setting"),
        ({"baselines": [3]}, r"baselines.0: expected text or keys and values, got 3"),
    ],
)
def test_wrong_changes_name_the_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_changes(Config(), changes)


def test_layers() -> None:
    tree = plain(Aggregator(weighting=FedBip(floor=0.5)))
    same = {"weighting": {"class_path": "fedpl.server.FedBip", "init_args": {"negatives": "clip"}}}
    assert build(Aggregator, merged(tree, same)).weighting == FedBip("clip", 0.5)
    other = {"weighting": {"class_path": "fedpl.server.Wiener"}}
    assert build(Aggregator, merged(tree, other)).weighting == Wiener()
    assert build(Aggregator, changed(tree, {"weighting": "FedBip"})).weighting == FedBip(floor=0.5)
    assert tree == plain(Aggregator(weighting=FedBip(floor=0.5)))


def test_baselines_are_methods() -> None:
    own = Method("softer", aggregator=Aggregator(weighting=Softmax()))
    config = Config(baselines=("local", "fedbip", own))
    assert [method.name for method in config.methods] == ["fedbip", "local", "softer"]
    assert config.methods[1] == baseline("local")
    assert build(Config, plain(config)).methods == config.methods
    with pytest.raises(UserError, match="baselines: name each once"):
        read(make_parser("fit", ""), ["--baselines=[local,local]"])
    with pytest.raises(UserError, match="no method 'nothing'"):
        read(make_parser("fit", ""), ["--baselines=[nothing]"])
    with pytest.raises(UserError, match=r"baselines: bad: aggregator\.weighting\.temperature"):
        check(Config(baselines=(Method("bad", aggregator=Aggregator(weighting=Softmax(-1.0))),)))


def test_a_file_that_sets_more_than_a_method_is_no_baseline(tmp_path: Any) -> None:
    path = tmp_path / "fast.yaml"
    path.write_text("client: {lr: 1.0}\naggregator: {weighting: Uniform}\n")
    with pytest.raises(UserError, match=r"the file of '.*fast.yaml' sets client.lr too"):
        read(make_parser("fit", ""), [f"--baselines=[{path}]"])
    config = read(make_parser("fit", ""), [f"--method={path}"])
    assert (config.name, config.client.lr) == ("fast", 1.0)


def test_numbers_in_yaml(tmp_path: Any) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("client: {lr: 1e-3, head_lr: 2}\n")
    assert read_yaml(path) == {"client": {"lr": 0.001, "head_lr": 2}}
    assert Config.load(path).client.lr == read(make_parser("fit", ""), [f"--config={path}"]).client.lr == 1e-3
