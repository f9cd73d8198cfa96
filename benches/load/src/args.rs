//! The command line, taken apart option by option.

use std::error::Error;
use std::str::FromStr;

/// What every command returns: its errors are only ever printed.
pub type Fallible<T> = Result<T, Box<dyn Error>>;

/// The words not taken yet.
#[derive(Debug)]
pub struct Args {
    words: Vec<String>,
}

impl Args {
    /// Holds `words`, the command itself already removed.
    pub fn new(words: Vec<String>) -> Self {
        Self { words }
    }

    /// Takes the switch `name`; true when it was given.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// Takes the next `name VALUE` pair.
    pub fn text(&mut self, name: &str) -> Fallible<Option<String>> {
        let Some(at) = self.words.iter().position(|word| word == name) else { return Ok(None) };
        if at + 1 >= self.words.len() {
            return Err(format!("{name} needs a value").into());
        }
        self.words.remove(at);
        Ok(Some(self.words.remove(at)))
    }

    /// Takes `name VALUE` as a number, when it was given.
    pub fn number<T: FromStr>(&mut self, name: &str) -> Fallible<Option<T>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("{name} {text}: not a number of that kind").into())
    }

    /// Takes `name VALUE` as a number that has to be there.
    pub fn required<T: FromStr>(&mut self, name: &str) -> Fallible<T> {
        self.number(name)?.ok_or_else(|| format!("{name} is missing").into())
    }

    /// Ends the reading: a word nobody took is a mistake.
    pub fn finish(self) -> Fallible<()> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(format!("what is {word}? try --help").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn takes_options_in_any_order_and_refuses_the_rest() {
        let mut given = args("--port 80 --nagle --oops");
        assert!(given.flag("--nagle"));
        assert_eq!(given.required::<u16>("--port").unwrap(), 80);
        assert!(given.finish().is_err());
    }

    #[test]
    fn refuses_a_missing_value_and_a_bad_number() {
        assert!(args("--port").text("--port").is_err());
        assert!(args("--port x").number::<u16>("--port").is_err());
        assert!(args("").required::<u16>("--port").is_err());
    }
}
