//! Ages as kubectl prints them.

use std::time::Duration;

/// Two units at most: `350ms`, `12s`, `3m20s`, `5h`, `4d`.
pub(crate) fn age(age: Duration) -> String {
    let s = age.as_secs();
    match s {
        0 => format!("{}ms", age.as_millis()),
        1..120 => format!("{s}s"),
        120..600 if !s.is_multiple_of(60) => format!("{}m{}s", s / 60, s % 60),
        120..7200 => format!("{}m", s / 60),
        7200..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let of = |ms| age(Duration::from_millis(ms));
        let ages = [0, 999, 1000, 119_000, 120_000, 200_000, 660_000, 7_200_000, 500_000_000].map(of);
        assert_eq!(ages, ["0ms", "999ms", "1s", "119s", "2m", "3m20s", "11m", "2h", "5d"]);
    }
}
