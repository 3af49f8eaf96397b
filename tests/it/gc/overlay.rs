//! A store of which a part came with the device's image: below an overlay, as on a device with a read-only root.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{decided, with_versions};
use crate::support::{Fixture, Outcome, Skipped, needs_root, tree};

tests![what_lies_in_a_lower_layer_stays_and_keeps_nothing_else_from_going];

/// Where something is mounted, for as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, options: &str, at: &Path) -> Result<Self, Skipped> {
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, "-o", options, kind]).arg(at);
        match mount.output() {
            Ok(ran) if ran.status.success() => Ok(Self(at.to_owned())),
            tried => Err(Skipped(format!("cannot mount {kind}: {tried:?}"))),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn what_lies_in_a_lower_layer_stays_and_keeps_nothing_else_from_going() -> Outcome {
    needs_root()?;
    let fixture = Fixture::new();
    with_versions(&fixture, 2);
    std::fs::create_dir_all(fixture.path("versions/v0.9.0/bin")).unwrap();
    std::fs::write(fixture.path("versions/v0.9.0/bin/app"), "by hand").unwrap();
    let layers = fixture.beside("layers");
    std::fs::create_dir(&layers).unwrap();
    let _layers = Mounted::new("tmpfs", "mode=755", &layers)?;
    for layer in ["upper", "work"] {
        std::fs::create_dir(layers.join(layer)).unwrap();
    }
    let root = fixture.root();
    let options = format!(
        "redirect_dir=off,lowerdir={},upperdir={},workdir={}",
        root.display(),
        layers.join("upper").display(),
        layers.join("work").display()
    );
    let _overlay = Mounted::new("overlay", &options, &root)?;
    for number in [6, 7] {
        let source = fixture.beside(format!("source-{number}"));
        tree::release(&source, number);
        fixture.run(&["import", source.to_str().unwrap(), "--version", &format!("{number}.0")]).ok();
    }
    let report = fixture.json(&["gc", "--keep-last", "1"]);
    assert_eq!(decided(&report, "removed").len(), 1, "{report:#}");
    assert_eq!(decided(&report, "removed")[0].0, "v6.0");
    let kept = decided(&report, "kept");
    // A process of another test may hold an inode of the same number where device numbers are not told apart.
    assert!(kept.len() == 3 && kept.iter().any(|(_, why)| *why == ["immovable"]), "{report:#}");
    let refused = fixture.run(&["remove", "1.1.0"]).expect(4);
    assert!(refused.stderr.contains("removed: v1.1.0"), "{refused:?}");
    fixture.run(&["verify"]).ok();
    // What is in the way of adopting is told with the way around it, which works.
    let refused = fixture.run(&["adopt"]).expect(1).stderr;
    assert!(refused.contains("cp -a DIR DIR.copy"), "{refused}");
    let script = "cp -a v0.9.0 v0.9.0.copy; rm -r v0.9.0; mv v0.9.0.copy v0.9.0";
    assert!(Command::new("sh").args(["-ec", script]).current_dir(fixture.path("versions")).status().unwrap().success());
    fixture.run(&["adopt"]).ok();
    fixture.run(&["verify"]).ok();
    assert_eq!(fixture.json(&["list"])["versions"].as_array().unwrap().len(), 4);
    Ok(())
}
