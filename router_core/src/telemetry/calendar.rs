//! UTC calendar arithmetic on unix seconds.

use time::{Date, Month, OffsetDateTime, Time};

/// Seconds of a day; UTC in unix time knows no leap seconds.
pub(crate) const DAY_SECS: u64 = 86_400;
/// Seconds of an hour.
pub(crate) const HOUR_SECS: u64 = 3600;
/// The last second that four-digit years can name.
const LAST_SECOND: u64 = 253_402_300_799;

/// The date and time of a unix second; seconds past the year 9999 count as its end.
pub(crate) fn utc(secs: u64) -> OffsetDateTime {
    i64::try_from(secs.min(LAST_SECOND))
        .ok()
        .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `year * 12 + month`, with January as 0.
pub(crate) fn month_key(secs: u64) -> u64 {
    let date = utc(secs).date();
    u64::from(date.year().unsigned_abs()) * 12 + u64::from(u8::from(date.month()) - 1)
}

/// The unix second at which the month after that of `secs` begins.
pub(crate) fn next_month(secs: u64) -> u64 {
    let date = utc(secs).date();
    let (year, month) = match date.month() {
        Month::December => (date.year() + 1, Month::January),
        month => (date.year(), month.next()),
    };
    Date::from_calendar_date(year, month, 1)
        .ok()
        .and_then(|date| u64::try_from(date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp()).ok())
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_the_calendar() {
        assert_eq!(month_key(0), 1970 * 12);
        assert_eq!(next_month(0), 31 * DAY_SECS);
        // 2024-02-29T23:59:59Z, a leap day, then 2024-03-01.
        assert_eq!(month_key(1_709_251_199), 2024 * 12 + 1);
        assert_eq!(next_month(1_709_251_199), 1_709_251_200);
        assert_eq!(month_key(1_709_251_200), 2024 * 12 + 2);
        // 2025-12-31T12:00:00Z turns the year.
        assert_eq!(next_month(1_767_182_400), 1_767_225_600);
        assert_eq!(next_month(u64::MAX), u64::MAX);
    }
}
