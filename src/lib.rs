//! stub
pub mod clock;
pub mod error;
pub mod model;
pub mod observe;
