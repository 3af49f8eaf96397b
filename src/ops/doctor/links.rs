//! Role links, links to programs, links to services.

use super::{Finding, Options, Report, Severity};
use crate::error::{Error, Result, Shown};
use crate::model::{EntryName, Role};
use crate::observe::Observer;
use crate::ops::link::{self, Mode, Outcome, Writing};
use crate::refs::{RoleLink, Spelling};
use crate::store::Store;
use crate::store::survey::{MadeByHand, Survey};

pub(super) fn examine(store: &Store, options: &Options<'_>, report: &mut Report, _: &dyn Observer) -> Result<()> {
    report.findings.extend(store.judge_at_rest(|survey| {
        let found = Role::ALL.into_iter().map(|role| of_role(store, survey, role));
        found.filter_map(Result::transpose).collect()
    })?);
    report.findings.extend(store.made_by_hand()?.unsuitable.iter().map(unsuitable));
    if store.refs()?.read()?.version(Role::Current).is_some() {
        through_current(store, options, report)?;
    }
    Ok(())
}

fn unsuitable(name: &EntryName) -> Finding {
    Finding::new(
        "unsuitable-name",
        Severity::Advice,
        format!("versions/{name} has a name that no version can have"),
        "it is neither listed nor ever removed, and shares no file with others",
    )
    .at([b"versions/", name.as_bytes()].concat())
    .remedy(MadeByHand::way_out(name))
}

/// A directory of versions/ that a link leads to and that would be a version if its name began with v: both names.
fn without_v(store: &Store, target: &[u8]) -> Option<(String, String)> {
    let target = std::str::from_utf8(target).ok()?.trim_end_matches('/');
    let name = target.rsplit('/').next()?;
    let meant = name.parse::<crate::model::VersionName>().ok().filter(|meant| meant.as_str() != name)?;
    let found = store.versions().try_stat(name).ok().flatten()?;
    (found.kind == crate::fsys::Kind::Directory).then(|| (name.to_owned(), meant.to_string()))
}

fn of_role(store: &Store, survey: &Survey, role: Role) -> Result<Option<Finding>> {
    let recorded = survey.marks.roles.get(&role).filter(|_| survey.history.is_trustworthy());
    let there = |name: &&crate::model::VersionName| store.has_tree(name).unwrap_or(false);
    let path = format!("versions/{role}");
    let why = match role {
        Role::Current => "services run from it",
        Role::Previous => "the first level of a rollback leads there",
        Role::Factory => "the last level of a rollback leads there",
    };
    let damaged = |kind, what: String| {
        let finding = Finding::new(kind, Severity::Damage, what, why).at(path.clone());
        match recorded.filter(there) {
            Some(recorded) => finding.remedy(format!("tope-store verify --repair (recorded is {recorded})")).fixable(),
            None => finding.remedy(match role {
                Role::Factory => "tope-store factory set VERSION --replace".to_owned(),
                _ => "tope-store activate VERSION".to_owned(),
            }),
        }
    };
    Ok(match survey.roles.get(role) {
        RoleLink::Absent => survey
            .missing(store, role)?
            .map(|recorded| damaged("role-missing", format!("{role} is gone; it led to {recorded}"))),
        RoleLink::Dangling { target } => {
            Some(damaged("role-dangling", format!("{role} leads to {}, which is not there", Shown::bytes(target))))
        }
        RoleLink::Foreign { target } if without_v(store, target).is_some() => {
            let (found, meant) = without_v(store, target).unwrap_or_default();
            let what = format!("{role} leads to versions/{found}, and names of versions begin with v");
            let finding = damaged("role-without-v", what);
            let finding = Finding { fixable: false, ..finding };
            Some(finding.remedy(format!(
                "mv versions/{found} versions/{meant}, then: tope-store adopt {meant}; tope-store activate {meant}"
            )))
        }
        RoleLink::Foreign { target } => {
            Some(damaged("role-foreign", format!("{role} leads to {}, which is no version", Shown::bytes(target))))
        }
        RoleLink::NotALink(kind) => Some(
            Finding::new("role-not-a-link", Severity::Damage, format!("{role} is {}", kind.describe()), why)
                .at(path)
                .remedy(format!("move versions/{role} away, then: tope-store verify --repair")),
        ),
        RoleLink::Version { spelling: Spelling::Roundabout { target }, .. } => Some(
            Finding::new(
                "role-roundabout",
                Severity::Advice,
                format!("{role} is written as {}", Shown::bytes(target)),
                "it leads to the right version, but not by its plain name, which other tools and images rely on",
            )
            .at(path)
            .fixable(),
        ),
        RoleLink::Version { spelling: Spelling::Through(other), .. } => Some(
            Finding::new(
                "role-through-role",
                Severity::Trouble,
                format!("{role} leads through {other}"),
                "it moves whenever the other role is switched",
            )
            .at(path)
            .fixable(),
        ),
        RoleLink::Version { version, .. } => match recorded {
            Some(recorded) if recorded != version => Some(
                Finding::new(
                    "role-changed-by-hand",
                    Severity::Advice,
                    format!("{role} leads to {version}; recorded is {recorded}"),
                    "somebody changed it by hand; the next switch records that",
                )
                .at(path)
                .of(version)
                .remedy(format!("nothing, if it was meant; else: tope-store rollback --to {recorded}")),
            ),
            _ => None,
        },
    })
}

/// Links to programs and services, as `link` would have them.
fn through_current(store: &Store, options: &Options<'_>, report: &mut Report) -> Result<()> {
    let wanted = link::Options { bin_dir: options.bin_dir.clone(), mode: Mode::Create, writing: Writing::Planned };
    let planned = match link::link(store, &wanted) {
        Ok(planned) => planned,
        Err(error @ (Error::Refused { .. } | Error::UnsupportedFormat { .. })) => {
            report.not_done.push(format!("looking at links to programs: {error}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    // Who never linked anything does without.
    let used = planned.links.iter().any(|link| link.outcome != Outcome::Created);
    for link in planned.links {
        let shown = Shown::path(&link.path).to_string();
        let finding = |kind, severity, what: String, why| {
            let path = std::os::unix::ffi::OsStrExt::as_bytes(link.path.as_os_str()).to_vec();
            Finding::new(kind, severity, what, why).at(path).remedy("tope-store link")
        };
        report.findings.push(match link.outcome {
            Outcome::Unchanged => continue,
            Outcome::Created if !used => continue,
            Outcome::Created => finding(
                "link-missing",
                Severity::Trouble,
                format!("{shown} is not there"),
                "the program or service is found under this path only",
            )
            .fixable(),
            Outcome::Replaced => finding(
                "link-wrong",
                Severity::Trouble,
                format!("{shown} does not lead through current"),
                "it does not move with the next switch",
            )
            .fixable(),
            Outcome::Removed => finding(
                "link-stale",
                Severity::Advice,
                format!("{shown} leads to nothing in the current version"),
                "whoever calls it gets an error",
            )
            .fixable(),
            Outcome::Foreign => finding(
                "link-foreign",
                Severity::Advice,
                format!("{shown} is {}", link.found.as_deref().unwrap_or("not a link of this store")),
                "the current version's own is not found under this path",
            )
            .remedy(format!("move {shown} away, then: tope-store link")),
        });
    }
    Ok(())
}
