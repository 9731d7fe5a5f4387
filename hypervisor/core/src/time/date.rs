//! Dates of the CMOS clock.

/// Seconds since 1970 of a UTC date and time in the proleptic Gregorian calendar; 0 for dates before that.
///
/// Months and days count from 1; a 0 in their place, as a clock that lost its battery may show, is taken as 1.
pub const fn unix_seconds(
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
) -> u64 {
    const DAYS_TO_1970: u64 = 719_468;
    if year < 1970 {
        return 0;
    }
    let month = if month == 0 { 1 } else { month };
    // Years from March, so that the leap day is the last of its year.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days_before_year = 365 * y + y / 4 - y / 100 + y / 400;
    let day_of_year = (153 * m + 2) / 5 + day.saturating_sub(1);
    let days = days_before_year + day_of_year - DAYS_TO_1970;
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_become_unix_time() {
        assert_eq!(unix_seconds(1970, 1, 1, 0, 0, 0), 0);
        assert_eq!(unix_seconds(2000, 2, 29, 12, 0, 0), 951_825_600);
        assert_eq!(unix_seconds(2026, 11, 21, 4, 9, 0), 1_795_234_140);
        assert_eq!(unix_seconds(2100, 3, 1, 0, 0, 0), 4_107_542_400);
    }

    #[test]
    fn a_clock_without_a_date_still_gives_one() {
        assert_eq!(unix_seconds(1970, 0, 0, 0, 0, 0), 0);
        assert_eq!(unix_seconds(0, 0, 0, 0, 0, 0), 0);
    }

    fn days_in(year: u64, month: u64) -> u64 {
        match month {
            2 if year.is_multiple_of(4)
                && (!year.is_multiple_of(100) || year.is_multiple_of(400)) =>
            {
                29
            }
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    proptest! {
        #[test]
        fn the_next_day_is_a_day_later(year in 1970u64..2400, month in 1u64..=12, day in 1u64..=31) {
            let day = day.min(days_in(year, month));
            let (y, m, d) = match (day == days_in(year, month), month) {
                (false, _) => (year, month, day + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
            prop_assert_eq!(unix_seconds(year, month, day, 23, 59, 59) + 1, unix_seconds(y, m, d, 0, 0, 0));
        }
    }
}
