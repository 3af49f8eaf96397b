//! stub
pub mod clock;
pub mod error;
pub mod fsys;
pub mod layout;
pub mod model;
pub mod observe;
