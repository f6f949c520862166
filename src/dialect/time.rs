//! The timestamps' spellings: aware UTC on sockets, `Z` over REST, naive local time on the debug echo; and naive UTC, which
//! two of the originals wrote although no reader can tell it from local time.
//!
//! Microseconds are left out when they are zero, as Python's `isoformat` does; clients parse both forms.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::Wall;

const DAY_SECONDS: i64 = 86_400;

/// `2025-05-13T01:59:00.123456+00:00`
pub fn utc(at: Wall) -> String {
    civil(at.0) + "+00:00"
}

/// `2025-05-13T01:59:00.123456Z`
pub fn zulu(at: Wall) -> String {
    civil(at.0) + "Z"
}

/// `2025-05-13T01:59:00.123456`, in UTC without saying so
pub fn naive_utc(at: Wall) -> String {
    civil(at.0)
}

/// The same to whole seconds, as a database stamps a row.
pub fn naive_utc_seconds(at: Wall) -> String {
    civil(at.0.saturating_sub(at.0.rem_euclid(1_000_000)))
}

/// The same instant on the wall of whoever lives in `zone`, without saying which zone that is.
pub fn naive(at: Wall, zone: &TimeZone) -> String {
    let offset = match Timestamp::from_microsecond(at.0) {
        Ok(instant) => i64::from(zone.to_offset(instant).seconds()),
        Err(_) => 0,
    };
    civil(at.0.saturating_add(offset * 1_000_000))
}

/// Microseconds since 1970 in the proleptic Gregorian calendar. By hand, because a date library's range is narrower
/// than `i64` and its error would need an answer here; the arithmetic is Howard Hinnant's `civil_from_days`.
fn civil(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let fraction = micros.rem_euclid(1_000_000);
    let days = seconds.div_euclid(DAY_SECONDS);
    let of_day = seconds.rem_euclid(DAY_SECONDS);

    // Days from 0000-03-01, so that the leap day is the last of its year; 146,097 days are 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);

    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let mut out = String::with_capacity("2025-05-13T01:59:00.123456+00:00".len());
    match year {
        0..=9_999 => put_digits(&mut out, year, 4),
        // ISO 8601 wants a sign and more digits; nothing we store gets there.
        _ => out.push_str(&format!("{year:+07}")),
    }
    for (mark, number) in [('-', month), ('-', day), ('T', hour), (':', minute), (':', second)] {
        out.push(mark);
        put_digits(&mut out, number, 2);
    }
    if fraction != 0 {
        out.push('.');
        put_digits(&mut out, fraction, 6);
    }
    out
}

/// Decimal digits, zeros in front. By hand: every saved update is stamped several times, and the formatter's way to do it was
/// an eighth of what the writer's own code cost (PERF.md).
fn put_digits(out: &mut String, number: i64, digits: u32) {
    let mut unit = 10_i64.pow(digits - 1);
    while unit > 0 {
        out.push(char::from(b'0' + (number / unit % 10) as u8));
        unit /= 10;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00"),
            (1, "1970-01-01T00:00:00.000001"),
            (-1, "1969-12-31T23:59:59.999999"),
            (-86_400_000_000, "1969-12-31T00:00:00"),
            (1_747_101_540_123_456, "2025-05-13T01:59:00.123456"),
            (1_747_101_540_000_000, "2025-05-13T01:59:00"),
            (951_782_400_000_000, "2000-02-29T00:00:00"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59.999999"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00"),
            (-62_167_219_200_000_000, "0000-01-01T00:00:00"),
            (-62_167_219_200_000_001, "-000001-12-31T23:59:59.999999"),
            (253_402_300_800_000_000, "+010000-01-01T00:00:00"),
        ] {
            assert_eq!(utc(Wall(micros)), format!("{expected}+00:00"));
            assert_eq!(zulu(Wall(micros)), format!("{expected}Z"));
            assert_eq!(naive_utc(Wall(micros)), expected);
            let seconds = expected.split('.').next().unwrap_or_default();
            assert_eq!(naive_utc_seconds(Wall(micros)), seconds);
        }
        for extreme in [i64::MIN, i64::MAX] {
            assert!(utc(Wall(extreme)).ends_with("+00:00"));
            assert!(!naive(Wall(extreme), &TimeZone::UTC).ends_with("+00:00"));
            assert!(!naive_utc_seconds(Wall(extreme)).is_empty());
        }
    }

    #[test]
    fn local_time_has_the_zone_s_offset_and_no_suffix() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(naive(Wall(0), &zone), "1970-01-01T02:00:00");
        assert_eq!(naive(Wall(-1), &TimeZone::fixed(jiff::tz::offset(-5))), "1969-12-31T18:59:59.999999");
    }

    proptest! {
        /// jiff is the independent judge wherever it goes.
        #[test]
        fn agrees_with_jiff(micros in -377_705_023_201_000_000i64..253_402_207_200_000_000) {
            let instant = Timestamp::from_microsecond(micros).unwrap();
            let ours: Timestamp = zulu(Wall(micros)).parse().unwrap();
            prop_assert_eq!(ours, instant);
        }
    }
}
