//! The index against what it is made from.

use super::{Finding, Options, Report, Severity};
use crate::error::Result;
use crate::observe::Observer;
use crate::store::Store;
use crate::store::catalog::IndexState;

pub(super) fn examine(store: &Store, _: &Options<'_>, report: &mut Report, _: &dyn Observer) -> Result<()> {
    // Nothing can be compared with a history that cannot be trusted; it comes first.
    if !store.history_state()?.is_trustworthy() {
        return Ok(());
    }
    let what = match store.index_state()? {
        // The next command that asks it brings it up to date.
        IndexState::Current | IndexState::Behind => return Ok(()),
        IndexState::Unknown(why) => {
            report.not_done.push(format!("comparing the index: {why}"));
            return Ok(());
        }
        IndexState::Missing => "there is no index".to_owned(),
        IndexState::Damaged(why) => format!("the index is damaged: {why}"),
    };
    report.findings.push(
        Finding::new(
            "index",
            Severity::Trouble,
            what,
            "nothing is lost, since it is made from manifests and history; commands are slower until it is made anew",
        )
        .at("store/index.db")
        .remedy("tope-store rebuild-index")
        .fixable(),
    );
    Ok(())
}
