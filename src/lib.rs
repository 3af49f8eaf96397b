//! stub
pub mod archive;
pub mod clock;
pub mod config;
pub mod error;
pub mod fsys;
pub mod hash;
pub mod history;
pub mod index;
pub mod layout;
pub mod manifests;
pub mod materialise;
pub mod model;
pub mod object;
pub mod observe;
pub mod ops;
pub mod refs;
pub mod scan;
pub mod staging;
pub mod store;
#[cfg(test)]
mod test_vectors;
