//! How an answer is to be given: by the mock's own settings, or by the name of the model that is asked for.

use crate::args::{Args, Fallible};

/// One way of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// When the events of a stream go out.
    pub pace: Pace,
    /// Token events of a stream.
    pub tokens: u32,
    /// Wait before the first event, when paced.
    pub ttft_ns: u64,
    /// Bytes of a JSON answer's body.
    pub bytes: usize,
    /// Leaves Nagle's algorithm on, as a server that forgot `TCP_NODELAY` does.
    pub nagle: bool,
}

/// When the events of a stream go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// All in one write.
    Burst,
    /// At once, but each in a write of its own.
    PerEvent,
    /// One in so many nanoseconds.
    Every(u64),
}

impl Default for Profile {
    fn default() -> Self {
        Self { pace: Pace::Burst, tokens: 64, ttft_ns: 25_000_000, bytes: 1024, nagle: false }
    }
}

impl Profile {
    /// Reads the settings off the command line.
    pub fn from_args(args: &mut Args) -> Fallible<Self> {
        let mut profile = Self::default();
        if let Some(mode) = args.text("--mode")? {
            profile.pace = Pace::named(&mode).ok_or("--mode is burst, flush or paced")?;
        }
        profile.tokens = args.number("--tokens")?.unwrap_or(profile.tokens);
        profile.bytes = args.number("--bytes")?.unwrap_or(profile.bytes);
        profile.ttft_ns = args.number("--ttft-us")?.map_or(profile.ttft_ns, |us: u64| us * 1_000);
        if let (Pace::Every(interval), Some(us)) = (&mut profile.pace, args.number::<u64>("--itl-us")?) {
            *interval = us * 1_000;
        }
        profile.nagle = args.flag("--nagle");
        Ok(profile)
    }

    /// What a model called `mock-<mode>[-t..][-f..][-i..][-b..][-nagle]` asks for; `defaults` otherwise.
    pub fn of_model(model: &[u8], defaults: &Self) -> Self {
        let words = std::str::from_utf8(model).ok().and_then(|name| name.strip_prefix("mock-"));
        let Some(words) = words else { return *defaults };
        words.split('-').fold(*defaults, Self::word)
    }

    fn word(mut self, word: &str) -> Self {
        if let Some(pace) = Pace::named(word) {
            self.pace = pace;
        } else if word == "nagle" {
            self.nagle = true;
        } else if let Some((key, digits)) = word.split_at_checked(1)
            && let Ok(number) = digits.parse::<u32>()
        {
            match (key, &mut self.pace) {
                ("t", _) => self.tokens = number,
                ("f", _) => self.ttft_ns = u64::from(number) * 1_000,
                ("b", _) => self.bytes = number as usize,
                ("i", Pace::Every(interval)) => *interval = u64::from(number) * 1_000,
                _ => {}
            }
        }
        self
    }
}

impl Pace {
    fn named(name: &str) -> Option<Self> {
        match name {
            "burst" => Some(Self::Burst),
            "flush" => Some(Self::PerEvent),
            "paced" => Some(Self::Every(5_000_000)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_overrides_the_defaults() {
        let defaults = Profile::default();
        let paced = Profile::of_model(b"mock-paced-t8-f100-i20-nagle", &defaults);
        assert_eq!(paced.pace, Pace::Every(20_000));
        assert_eq!((paced.tokens, paced.ttft_ns, paced.nagle), (8, 100_000, true));
        assert_eq!(Profile::of_model(b"mock-json-b4096", &defaults).bytes, 4096);
    }

    #[test]
    fn other_models_get_the_defaults() {
        let defaults = Profile { tokens: 3, ..Profile::default() };
        assert_eq!(Profile::of_model(b"gpt-4o-mini", &defaults), defaults);
        assert_eq!(Profile::of_model(b"", &defaults), defaults);
    }
}
