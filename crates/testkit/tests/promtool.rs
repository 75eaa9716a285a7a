//! The alert rules are valid, and each alert fires on its condition and clears after it.

use std::path::Path;
use std::process::Command;

use tidewheel_testkit::programs;

#[tokio::test]
async fn alert_rules_are_valid_and_pass_their_tests() {
    let program = programs::promtool().await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus");
    let run = |arguments: &[&str], folder: &Path| {
        let output = Command::new(&program.path).args(arguments).current_dir(folder).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), text)
    };
    let (valid, text) = run(&["check", "rules", "alerts.yml"], &folder);
    assert!(valid, "{text}");
    let (passed, text) = run(&["test", "rules", "alerts_test.yml"], &folder);
    assert!(passed, "{text}");

    // The tests detect a changed threshold.
    let copy = tempfile::tempdir().unwrap();
    let rules = std::fs::read_to_string(folder.join("alerts.yml")).unwrap();
    std::fs::write(copy.path().join("alerts.yml"), rules.replace("> 1000", "> 2000")).unwrap();
    std::fs::copy(folder.join("alerts_test.yml"), copy.path().join("alerts_test.yml")).unwrap();
    let (passed, text) = run(&["test", "rules", "alerts_test.yml"], copy.path());
    assert!(!passed && text.contains("TidewheelStage1Behind"), "{text}");
}
