"""bundle.json is read strictly: every error names the place, what came and what was expected."""

import json
from dataclasses import asdict

import pytest

from pchmr_engines import Bundle
from pchmr_engines.errors import BundleError
from pchmr_engines.manifest import Manifest, manifest_digest, manifest_from_json
from pchmr_engines.strict_json import from_json


@pytest.fixture
def value(bundle_folder):
    """The parsed bundle.json of a good bundle."""
    return json.loads((bundle_folder / "bundle.json").read_text())


def stage(value):
    return value["stages"][0]


def graph(value):
    return stage(value)["graphs"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(schema=1), "has schema 1; this version reads 2: update pchmr, or"),
        (lambda v: v.update(schema=True), "has schema True; this version reads 2"),
        (lambda v: v.pop("schema"), "has schema None; this version reads 2"),
        (lambda v: v.pop("stages"), r"b.json: \['stages'\] is missing: export the bundle again"),
        (lambda v: v.update(more=1), r"b.json: \['more'\] is unknown; expected \['body', 'calib"),
        (lambda v: v.update(name=None), r"b.json.name is null; expected str"),
        (lambda v: v.update(stages={}), r"b.json.stages is {}; expected a list"),
        (lambda v: v.update(stages=[]), "stages is empty; expected at least one stage"),
        (lambda v: v.update(stages=[3]), r"stages\[0\] is 3; expected an object"),
        (lambda v: v.update(topologies=[]), "topologies is empty"),
        (lambda v: v.update(topologies=["ring"]), r'topologies\[0\] is "ring"; expected one of \['),
        (lambda v: v.update(body=1), "body is 1; expected an object"),
        (lambda v: v["stages"].append(stage(v)), "stage names .* are not unique"),
        (lambda v: stage(v).update(role="juggler"), r'role is "juggler"; expected one of \[\'dete'),
        (lambda v: stage(v).update(macs=1.5), r"macs is 1.5; expected int"),
        (lambda v: stage(v).update(macs=True), r"macs is true; expected int"),
        (lambda v: stage(v).update(settings=[]), r"settings is \[\]; expected an object"),
        (lambda v: graph(v).update(sha256="00"), "sha256 of stages/tiny.fp32.onnx is '00'; expec"),
        (lambda v: stage(v).update(inputs=[]), "'tiny' has no inputs or no outputs"),
        (lambda v: stage(v).update(parity_data=None), "has gates, but no parity_data"),
        (lambda v: graph(v)["parity"].update(q=graph(v)["parity"]["y"]), r"names \['q'\], which"),
        (lambda v: stage(v).update(graphs=[]), "'tiny' has no graphs"),
        (lambda v: stage(v)["graphs"].append(graph(v)), "two of its graphs .* are alike"),
        (lambda v: graph(v).update(precision="fp12"), r'precision is "fp12"; expected one of'),
        (lambda v: stage(v)["crop"].update(size=[1]), r"crop.size is \[1\]; expected a list of 2"),
        (lambda v: stage(v)["crop"].update(size=[1, "w"]), r'crop.size\[1\] is "w"; expected int'),
        (lambda v: stage(v)["crop"].update(colour="cmyk"), r"colour is \"cmyk\"; expected one of"),
        (lambda v: stage(v)["outputs"][0].update(name="x"), r"names .* are not unique"),
        (lambda v: stage(v)["inputs"][0].update(shape=["N", 3]), r"x \(N, 3\) float32 is not 'B'"),
        (lambda v: stage(v)["inputs"][0].update(shape=["B", "C"]), r"x \(B, C\) float32 is not"),
        (lambda v: stage(v)["inputs"][0].update(shape=["B", 0]), r"x \(B, 0\) float32 is not"),
        (lambda v: stage(v)["inputs"][0].update(shape=[1.5]), r"shape\[0\] is 1.5; expected int o"),
        (lambda v: v["body"].update(file="parity/tiny.npz"), "a file is listed twice"),
        (lambda v: stage(v)["settings"].update(threshold=0.25), "is not as it was written: copy"),
    ],
)
def test_a_manifest_that_is_not_meant_is_refused(change, message, value):
    change(value)
    with pytest.raises(BundleError, match=message) as caught:
        manifest_from_json(json.dumps(value), "b.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"b.json is not JSON \("),
        ("[" * 100_000, r"b.json is not JSON \("),
        ('{"schema": 1, "schema": 1}', r"a key of \['schema'\] stands twice"),
        ('{"schema": NaN}', "NaN is no JSON number"),
        ("[]", "has schema None"),
    ],
)
def test_text_that_is_no_manifest_is_refused(text, message):
    with pytest.raises(BundleError, match=message):
        manifest_from_json(text, "b.json")


def test_an_edited_manifest_is_accepted_with_the_digest_that_the_error_names(bundle_folder, value):
    stage(value)["settings"]["threshold"] = 0.25
    value["sha256"] = manifest_digest(from_json(Manifest, value, "b.json"))
    (bundle_folder / "bundle.json").write_text(json.dumps(value))
    assert Bundle.load(bundle_folder).stages["tiny"].settings["threshold"] == 0.25


def test_a_manifest_survives_the_journey(bundle_folder):
    manifest = Bundle.load(bundle_folder).manifest
    assert manifest_from_json(json.dumps(asdict(manifest)), "b.json") == manifest
