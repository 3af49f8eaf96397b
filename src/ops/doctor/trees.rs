//! Trees and manifests: what a quick look shows of every version.

use std::collections::BTreeMap;

use super::{Finding, Options, Report, Severity};
use crate::error::{Error, Result, Shown, chain};
use crate::model::VersionName;
use crate::observe::Observer;
use crate::ops::check::Depth;
use crate::ops::verify::{self, NEWER, inspect};
use crate::store::Store;

/// A path, and what is wrong there.
type Place = (Vec<u8>, String);

/// The way out where this binary is too old.
const TOO_OLD: &str = "use the tope-store that wrote it, or a newer one";

/// The kind of a name that does not belong into a version.
const UNEXPECTED: &str = "unexpected";

/// Most paths of one kind that are named.
const MOST_NAMED: usize = 3;

pub(super) fn examine(store: &Store, _: &Options<'_>, report: &mut Report, observer: &dyn Observer) -> Result<()> {
    let marks = store.survey()?.marks;
    let options = verify::Options { depth: Depth::Quick, ..verify::Options::default() };
    let checked = match inspect(store, &options, observer) {
        Ok((checked, _)) => checked,
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => {
            report.not_done.push(format!("comparing trees with manifests: {}", chain(&error)));
            return Ok(());
        }
    };
    let mut grouped: BTreeMap<(Option<VersionName>, String), Vec<Place>> = BTreeMap::new();
    let concerns = |finding: &verify::Finding| finding.damage || finding.kind == NEWER || finding.kind == UNEXPECTED;
    let findings = checked.findings.into_iter().filter(concerns);
    // What is wrong with links and history has families of its own.
    for finding in findings.filter(|finding| !matches!(finding.kind.as_str(), "history" | "link")) {
        grouped.entry((finding.version, finding.kind)).or_default().push((finding.path, finding.detail));
    }
    for ((version, kind), places) in grouped {
        report.findings.push(of_kind(version.as_ref(), &kind, &places));
    }
    for (version, what) in &marks.damaged {
        report.findings.push(
            Finding::new(
                "unrepaired",
                Severity::Damage,
                format!("a repair could not mend all of {version}: {what}"),
                "it is not activated before its damage is mended",
            )
            .of(version)
            .remedy(format!("tope-store verify {version} --repair --from SOURCE")),
        );
    }
    if checked.unseen > 0 {
        report.not_done.push(format!("{} names may not be looked at by this user", checked.unseen));
    }
    Ok(())
}

fn of_kind(version: Option<&VersionName>, kind: &str, places: &[Place]) -> Finding {
    let name = version.map_or(String::new(), |version| format!("{version}: "));
    let named: Vec<String> =
        places.iter().take(MOST_NAMED).map(|(path, detail)| format!("{}: {detail}", Shown::bytes(path))).collect();
    let more = match places.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let what = format!("{name}{}{more}", named.join("; "));
    if let (NEWER, Some(version)) = (kind, version) {
        let why =
            "it cannot be verified, activated after a check, or imported again, and gc refuses to remove anything";
        let finding = Finding::new(NEWER, Severity::Trouble, what, why).of(version);
        return finding.at(format!("store/manifests/{version}")).remedy(TOO_OLD);
    }
    if let (UNEXPECTED, Some(version), [(path, _), ..]) = (kind, version, places) {
        let why = "something wrote into a release; a service may load it, and another version does not have it";
        let finding = Finding::new("superfluous", Severity::Trouble, what, why).of(version).at(path.clone());
        return finding
            .remedy("see what wrote it, then remove it; what a service writes is declared as private or shared");
    }
    let (kind, why) = match kind {
        "mode" => ("mode", "programs may not start, or files be writable that must not be"),
        "owner" => ("owner", "services may be refused what they need, or be able to write what they must not"),
        "missing-tree" => ("missing-tree", "it can be neither activated nor rolled back to"),
        "missing" => ("missing", "a service that needs it fails"),
        "manifest" => ("manifest", "nothing tells what the version must hold, and gc refuses to remove anything"),
        "loss" => (
            "loss",
            "every command that changes anything refuses, except a rollback, until what is there is found again",
        ),
        "object" => {
            ("object", "what is made from it is lost or damaged in the store; an import that needs it makes it again")
        }
        "modified" | "size" | "content" => {
            ("written", "something wrote into a release; every version that shares the file has the change")
        }
        "target" | "type" => ("replaced", "something replaced a part of the release"),
        "attributes" => ("attributes", "capabilities or access lists differ from what was released"),
        _ => ("unreadable", "the medium may be failing: copy what matters elsewhere"),
    };
    let finding = Finding::new(kind, Severity::Damage, what, why);
    let finding = match version {
        Some(version) => finding.of(version).remedy(format!("tope-store verify {version} --repair")),
        None => finding.remedy("tope-store verify --repair"),
    };
    match places {
        [(path, _), ..] => finding.at(path.clone()),
        [] => finding,
    }
}
