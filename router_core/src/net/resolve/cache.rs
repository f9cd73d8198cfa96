//! What one thread remembers of names, bounded in number and time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use tokio::time::Instant;

use crate::error::Result;
use crate::limits;

/// The addresses of a name, or why there are none.
pub(super) type Found = Result<Rc<[IpAddr]>>;

/// At most [`limits::RESOLVED_NAMES`] names with what was found, each until its time is over.
#[derive(Debug, Default)]
pub(super) struct Cache {
    rows: HashMap<Box<str>, Row>,
}

#[derive(Debug)]
struct Row {
    found: Found,
    until: Instant,
}

impl Cache {
    /// What is known of a name at `now`.
    pub(super) fn find(&self, name: &str, now: Instant) -> Option<&Found> {
        self.rows.get(name).filter(|row| now < row.until).map(|row| &row.found)
    }

    /// Remembers what was found. A full cache forgets what is over, then the row that would be over first.
    pub(super) fn keep(&mut self, name: &str, found: Found, until: Instant, now: Instant) {
        if self.rows.len() >= limits::RESOLVED_NAMES && !self.rows.contains_key(name) {
            self.make_room(now);
        }
        self.rows.insert(name.into(), Row { found, until });
    }

    fn make_room(&mut self, now: Instant) {
        self.rows.retain(|_, row| now < row.until);
        if self.rows.len() < limits::RESOLVED_NAMES {
            return;
        }
        let first = self.rows.iter().min_by_key(|(_, row)| row.until).map(|(name, _)| name.clone());
        if let Some(name) = first {
            self.rows.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn address(last: u8) -> Rc<[IpAddr]> {
        [IpAddr::from(Ipv4Addr::new(192, 0, 2, last))].into()
    }

    #[test]
    fn a_row_is_found_until_its_time_is_over() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.keep("a.example", Ok(address(1)), now + Duration::from_secs(2), now);
        assert_eq!(cache.find("a.example", now + Duration::from_millis(1999)), Some(&Ok(address(1))));
        assert_eq!(cache.find("a.example", now + Duration::from_secs(2)), None);
        assert_eq!(cache.find("b.example", now), None);
    }

    #[test]
    fn a_full_cache_forgets_the_row_that_would_be_over_first() {
        let now = Instant::now();
        let mut cache = Cache::default();
        for i in 0..limits::RESOLVED_NAMES {
            let seconds = if i == 7 { 1 } else { 60 };
            cache.keep(&format!("{i}.example"), Ok(address(1)), now + Duration::from_secs(seconds), now);
        }
        cache.keep("one.more.example", Ok(address(2)), now + Duration::from_secs(60), now);
        assert_eq!(cache.rows.len(), limits::RESOLVED_NAMES);
        assert_eq!(cache.find("7.example", now), None);
        assert_eq!(cache.find("8.example", now), Some(&Ok(address(1))));
        assert_eq!(cache.find("one.more.example", now), Some(&Ok(address(2))));
    }

    #[test]
    fn a_full_cache_forgets_what_is_over_and_keeps_the_rest() {
        let now = Instant::now();
        let mut cache = Cache::default();
        for i in 0..limits::RESOLVED_NAMES {
            let seconds = if i % 2 == 0 { 1 } else { 60 };
            cache.keep(&format!("{i}.example"), Ok(address(1)), now + Duration::from_secs(seconds), now);
        }
        let later = now + Duration::from_secs(5);
        cache.keep("one.more.example", Ok(address(2)), later + Duration::from_secs(5), later);
        assert_eq!(cache.rows.len(), limits::RESOLVED_NAMES / 2 + 1);
    }

    #[test]
    fn a_name_that_is_there_is_replaced_and_makes_nobody_leave() {
        let now = Instant::now();
        let until = now + Duration::from_secs(60);
        let mut cache = Cache::default();
        for i in 0..limits::RESOLVED_NAMES {
            cache.keep(&format!("{i}.example"), Ok(address(1)), until, now);
        }
        cache.keep("3.example", Ok(address(2)), until, now);
        assert_eq!(cache.rows.len(), limits::RESOLVED_NAMES);
        assert_eq!(cache.find("3.example", now), Some(&Ok(address(2))));
    }
}
