//! System calls, in the order of the design: configuration, entry point (`entry.S`), dispatch, numbers.

pub mod configuration;
pub mod count;
#[cfg(not(variant = "today"))]
pub mod dispatch;
#[cfg(variant = "today")]
#[path = "dispatch_today.rs"]
pub mod dispatch;
pub mod frame;
pub mod numbers;
