//! Work on an offline image, which must not reach the machine that it is done on.

use std::path::PathBuf;

use crate::support::{Fixture, Outcome, Ran, tree};

tests![links_have_the_paths_of_the_device, nothing_of_an_image_is_run_or_restarted_here,];

/// An image with a store of two versions.
struct Image {
    fixture: Fixture,
}

impl Image {
    fn new() -> Self {
        let image = Self { fixture: Fixture::bare() };
        image.run(&["init"]).ok();
        for (number, version) in [(1, "1.0.0"), (2, "1.1.0")] {
            let source = image.fixture.beside(version);
            tree::release(&source, number);
            image.run(&["import", source.to_str().unwrap(), "--version", version, "--activate"]).ok();
        }
        image
    }

    fn path(&self, path: &str) -> PathBuf {
        self.fixture.beside("image").join(path)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        std::fs::create_dir_all(self.path("etc/tope-store")).unwrap();
        let mut command = std::process::Command::new(crate::support::binary());
        command.arg("--sysroot").arg(self.path("")).args(arguments);
        Ran::of(&command.output().unwrap())
    }

    fn current(&self) -> PathBuf {
        std::fs::read_link(self.path("opt/tope/versions/current")).unwrap()
    }
}

fn links_have_the_paths_of_the_device() -> Outcome {
    let image = Image::new();
    image.run(&["link"]).ok();
    let link = std::fs::read_link(image.path("usr/local/bin/device-api")).unwrap();
    assert_eq!(link, std::path::Path::new("/opt/tope/versions/current/bin/device-api"));
    let again = image.run(&["--json", "link"]).ok().json();
    let links = again["links"].as_array().unwrap();
    assert!(!links.is_empty() && links.iter().all(|link| link["action"] == "unchanged"), "{again:#}");
    Ok(())
}

/// The machine may be a device of the same kind, with services of the same names.
fn nothing_of_an_image_is_run_or_restarted_here() -> Outcome {
    let image = Image::new();
    let ran = image.fixture.beside("ran").display().to_string();
    let touch = format!("[\"touch\", \"{ran}\", \"{{unit}}\"]");
    let supervisor = ["start", "stop", "restart", "status"].map(|verb| format!("{verb} = {touch}\n")).concat();
    let config = format!(
        "[notify]\ncommand = [\"touch\", \"{ran}\"]\n[supervisor]\nkind = \"command\"\n{supervisor}\
         [[service]]\nunit = \"device-api.service\"\nsettle = \"0s\"\n"
    );
    std::fs::write(image.path("etc/tope-store/config.toml"), config).unwrap();
    for arguments in [
        &["activate", "1.0.0", "--restart"][..],
        &["activate", "1.0.0", "--restart=all"],
        &["rollback", "--restart"],
        &["boot-check"],
        &["boot-check", "--count"],
    ] {
        let refused = image.run(arguments).expect(2).stderr;
        assert!(refused.contains("cannot go with --sysroot"), "{arguments:?}: {refused}");
        assert_eq!(image.current(), std::path::Path::new("v1.1.0"), "{arguments:?}");
    }
    image.run(&["rollback"]).ok();
    assert_eq!(image.current(), std::path::Path::new("v1.0.0"));
    std::fs::write(image.path("opt/tope/store/trial"), "no trial").unwrap();
    for arguments in [&["doctor"][..], &["status"], &["verify"], &["gc", "--keep-last", "1"]] {
        image.run(arguments);
    }
    assert!(!std::path::Path::new(&ran).exists(), "something of the image ran here");
    Ok(())
}
