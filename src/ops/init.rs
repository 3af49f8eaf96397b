//! Creating a store.

use crate::error::Result;
use crate::layout::Layout;
use crate::store::create::{CreateOptions, create};
use crate::store::{Settings, Store};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Whether a store was made; `false` if there was one.
    pub created: bool,
    /// Whether everything is applied as the store's owner, who is not root.
    pub squash: bool,
}

/// Makes a store at `layout` unless there is one.
///
/// # Errors
///
/// As [`create`].
pub fn init(layout: Layout, settings: Settings, options: CreateOptions) -> Result<(Store, Report)> {
    let (store, created) = create(layout, settings, options)?;
    let squash = store.format().squash();
    Ok((store, Report { created, squash }))
}
