//! Work on an offline image, which must not reach the machine that it is done on.

use std::path::PathBuf;

use crate::support::{Fixture, Outcome, Ran, tree};

tests![
    links_have_the_paths_of_the_device,
    nothing_of_an_image_is_run_or_restarted_here,
    no_link_leads_init_out_of_an_image,
    no_link_leads_other_commands_out_of_an_image,
    links_inside_an_image_are_followed,
    role_links_mean_what_they_mean_on_the_device,
];

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

/// A file system of a device often has links with absolute targets. Without its image as root they lead to the machine
/// that the image is built on.
fn no_link_leads_init_out_of_an_image() -> Outcome {
    let fixture = Fixture::bare();
    let host = fixture.beside("host");
    std::fs::create_dir(&host).unwrap();
    let above = format!("../../../../../../../../../..{}", host.display());
    let chained = fixture.beside("image-chain/step").display().to_string();
    for (name, target) in [
        ("absolute", host.to_str().unwrap()),
        ("above", &above),
        ("beside", "../host"),
        ("chain", "/step"),
        ("loop", "opt"),
        ("magic", "/proc/self/root/tmp"),
    ] {
        let image = fixture.beside(format!("image-{name}"));
        std::fs::create_dir(&image).unwrap();
        std::os::unix::fs::symlink(target, image.join("opt")).unwrap();
        let ran = sysroot(&image, &["init"]).expect(1);
        let said = if name == "loop" { "symbolic links" } else { "which is not there" };
        assert!(ran.stderr.contains(said), "{name}: {ran:?}");
    }
    std::os::unix::fs::symlink(&host, &chained).unwrap();
    sysroot(&fixture.beside("image-chain"), &["init"]).expect(1);
    assert_eq!(std::fs::read_dir(&host).unwrap().count(), 0, "something was written on the host");
    Ok(())
}

fn no_link_leads_other_commands_out_of_an_image() -> Outcome {
    let image = Image::new();
    let host = image.fixture.beside("host");
    std::fs::create_dir_all(host.join("etc/tope-store")).unwrap();
    std::fs::create_dir_all(host.join("bin")).unwrap();
    // Links to programs.
    std::fs::create_dir_all(image.path("usr")).unwrap();
    std::os::unix::fs::symlink(&host, image.path("usr/local")).unwrap();
    image.run(&["link"]).expect(1);
    assert_eq!(std::fs::read_dir(host.join("bin")).unwrap().count(), 0, "links were made on the host");
    // Links to services, which lie beside versions.
    std::fs::rename(image.path("opt/tope/services"), image.path("opt/tope/was")).unwrap();
    std::os::unix::fs::symlink(host.join("bin"), image.path("opt/tope/services")).unwrap();
    image.run(&["link", "--bin-dir", "/bin"]).expect(1);
    assert_eq!(std::fs::read_dir(host.join("bin")).unwrap().count(), 0, "links were made on the host");
    // The configuration.
    std::fs::write(host.join("etc/tope-store/config.toml"), "root = \"/elsewhere\"\n").unwrap();
    std::fs::remove_dir_all(image.path("etc")).unwrap();
    std::os::unix::fs::symlink(host.join("etc"), image.path("etc")).unwrap();
    let status = sysroot(&image.path(""), &["--json", "status"]).json();
    assert_eq!(status["root"], image.path("opt/tope").display().to_string());
    Ok(())
}

fn links_inside_an_image_are_followed() -> Outcome {
    let fixture = Fixture::bare();
    let image = fixture.beside("image");
    for made in ["srv/store", "data/local", "conf/tope-store"] {
        std::fs::create_dir_all(image.join(made)).unwrap();
    }
    for (target, name) in [("/srv/store", "opt"), ("/conf", "etc"), ("/data", "usr")] {
        std::os::unix::fs::symlink(target, image.join(name)).unwrap();
    }
    std::fs::write(image.join("conf/tope-store/config.toml"), "bin_dir = \"/usr/local/progs\"\n").unwrap();
    let said = sysroot(&image, &["init"]).ok().stdout;
    assert!(said.contains(image.join("srv/store/tope").to_str().unwrap()), "{said}");
    let source = fixture.beside("source");
    tree::release(&source, 1);
    sysroot(&image, &["import", source.to_str().unwrap(), "--version", "1.0.0", "--activate"]).ok();
    sysroot(&image, &["link"]).ok();
    let link = image.join("data/local/progs/device-api");
    assert_eq!(std::fs::read_link(link).unwrap(), PathBuf::from("/opt/tope/versions/current/bin/device-api"));
    let again = sysroot(&image, &["--json", "link"]).ok().json();
    let links = again["links"].as_array().unwrap();
    assert!(links.iter().all(|link| link["action"] == "unchanged"), "{again:#}");
    assert!(links.iter().any(|link| link["path"] == "/data/local/progs/device-api"), "{again:#}");
    // A root that is not absolute begins at the image's top as well.
    let status = sysroot(&image, &["--root", "opt/../store/tope", "--json", "status"]).ok().json();
    assert_eq!(status["current"]["version"], "v1.0.0");
    for arguments in [&["verify"][..], &["doctor"], &["gc", "--keep-last", "1"], &["list"], &["rebuild-index"]] {
        sysroot(&image, arguments).ok();
    }
    Ok(())
}

/// An absolute target is one of the device. That the image lies at some path of this machine means nothing there.
fn role_links_mean_what_they_mean_on_the_device() -> Outcome {
    let image = Image::new();
    let current = image.path("opt/tope/versions/current");
    let outside = image.path("opt/tope/versions/v1.0.0");
    for (target, version) in [
        (PathBuf::from("/opt/tope/versions/v1.0.0"), serde_json::json!("v1.0.0")),
        (PathBuf::from("../../../../../../opt/tope/versions/v1.0.0"), serde_json::json!("v1.0.0")),
        (outside, serde_json::Value::Null),
    ] {
        std::fs::remove_file(&current).unwrap();
        std::os::unix::fs::symlink(&target, &current).unwrap();
        let status = image.run(&["--json", "status"]).json();
        assert_eq!(status["current"]["version"], version, "{}: {status:#}", target.display());
    }
    Ok(())
}

/// Runs the command on an image.
fn sysroot(image: &std::path::Path, arguments: &[&str]) -> Ran {
    let mut command = std::process::Command::new(crate::support::binary());
    command.arg("--sysroot").arg(image).args(arguments);
    for variable in ["TOPE_ROOT", "TOPE_SYSROOT", "TOPE_CONFIG", "TOPE_BIN_DIR"] {
        command.env_remove(variable);
    }
    Ran::of(&command.output().unwrap())
}
