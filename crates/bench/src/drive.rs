//! Which packets the driver makes.

#[path = "../../../ebpf/src/floors/drive.rs"]
#[expect(
    unreachable_pub,
    clippy::inline_always,
    clippy::cast_possible_truncation,
    reason = "the other object that this file is part of"
)]
mod shared;

pub(crate) use shared::{Drive, address};
