//! Every command that takes a model takes one of the hub.

use std::path::Path;

use blip2_tests::hub_server::{HubServer, files_in};
use blip2_tests::{Experiment, expect_code, stderr, stdout};

const CAPTION: &str = "caption --image data/images/000001.jpg --max-new-tokens 8 --json --model";

fn served() -> (HubServer, Experiment) {
    let server = HubServer::new();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/blip2");
    server.commit("owner/tiny", "main", &files_in(&models.join("plain")));
    let mut experiment = Experiment::new();
    experiment.set_env("HF_ENDPOINT", &server.endpoint());
    experiment.set_env("HF_HOME", experiment.path("home").to_str().unwrap());
    experiment.set_env("HF_HUB_OFFLINE", "0");
    (server, experiment)
}

#[test]
fn commands_take_models_of_the_hub() {
    let (server, mut experiment) = served();
    let output = experiment.blip2(&format!("{CAPTION} owner/tiny"));
    expect_code(&output, 0);
    let captions = stdout(&output);
    assert!(captions.contains("token_ids"), "{captions}");

    let snapshots = experiment.path("home/hub/models--owner--tiny/snapshots");
    let folder = std::fs::read_dir(snapshots)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let output = experiment.blip2(&format!("{CAPTION} {}", folder.display()));
    assert_eq!(stdout(&output), captions);

    let output = experiment.blip2("inspect hf://owner/tiny@main");
    expect_code(&output, 0);
    let output = experiment
        .blip2("convert --from owner/tiny --to converted --format burnpack --base owner/tiny");
    expect_code(&output, 0);
    let output = experiment.blip2(
        "evaluate --model owner/tiny --annotations data/annotations/captions_val.json --images data/images \
         --max-new-tokens 4",
    );
    expect_code(&output, 0);

    drop(server);
    experiment.set_env("HF_HUB_OFFLINE", "1");
    let output = experiment.blip2(&format!("{CAPTION} owner/tiny"));
    assert_eq!(stdout(&output), captions);
    let output = experiment.blip2(&format!("{CAPTION} owner/other"));
    expect_code(&output, 1);
    let error = stderr(&output);
    assert!(
        error.contains("owner/other is no file or folder") && error.contains("HF_HUB_OFFLINE"),
        "{error}"
    );
}

#[test]
fn a_recipe_takes_a_tower_of_the_hub_and_its_run_keeps_the_files() {
    let (_server, experiment) = served();
    // Weights that say their architecture, in the place of the architecture alone.
    let config = std::fs::read_to_string(experiment.path("debug.toml")).unwrap();
    let (before, after) = config
        .split_once("[model.text_backbone.architecture]")
        .unwrap();
    let (_, after) = after.split_once("\n\n").unwrap();
    let weights = "weights = \"hf://owner/tiny\"";
    let config = format!("{}\n{weights}\n\n{after}", before.trim_end());
    std::fs::write(experiment.path("debug.toml"), config).unwrap();
    let output = experiment.train(
        "run",
        "--set model.tokenizer=hf://owner/tiny --set train.epochs=1",
    );
    expect_code(&output, 0);
    let config = std::fs::read_to_string(experiment.path("run/config.toml")).unwrap();
    assert!(
        config.contains("models--owner--tiny/snapshots/"),
        "{config}"
    );
}

#[test]
fn names_that_are_neither_path_nor_hub_id_say_so() {
    let (_server, experiment) = served();
    for (model, code, message) in [
        ("./owner/tiny", 2, "does not exist: name a run folder"),
        ("hf://tiny", 2, "a model is owner/name"),
        ("owner/nothing", 1, "has no model owner/nothing"),
    ] {
        let output = experiment.blip2(&format!("{CAPTION} {model}"));
        expect_code(&output, code);
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}
