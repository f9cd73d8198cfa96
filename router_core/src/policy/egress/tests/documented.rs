use super::*;

const PAGE: &str = include_str!("../../../../../docs/policy.md");

fn part() -> &'static str {
    &PAGE[PAGE.find("\n# The egress lists").unwrap()..]
}

/// The examples: the file's name and its text.
fn examples() -> Vec<(&'static str, &'static str)> {
    let blocks = part().split("\n```json ").skip(1);
    blocks
        .map(|block| block.split_once('\n').unwrap())
        .map(|(name, rest)| (name, rest.split("```").next().unwrap()))
        .collect()
}

/// The rows of the table under a heading: their cells.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let rows = &part()[part().find(&format!("\n| {heading} |")).unwrap() + 1..];
    let rows = rows.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

fn code(cell: &'static str) -> &'static str {
    cell.split('`').nth(1).unwrap()
}

#[test]
fn the_table_of_answers_is_what_the_examples_answer() {
    let examples = examples();
    assert_eq!(
        examples.iter().map(|e| e.0).collect::<Vec<_>>(),
        ["allowlist.json", "allowlist.json", "approval-ticket-7.json"]
    );
    assert!(Allowlist::compile(examples[0].1.as_bytes()).is_ok());
    let approval = Approval::compile(examples[2].0, examples[2].1.as_bytes()).unwrap();
    let list = Allowlist::compile(examples[1].1.as_bytes()).unwrap();
    let policy = Egress::new(Arc::new(list), vec![Arc::new(approval)]);
    let rows = table("Connection");
    assert!(rows.len() > 15);
    for row in rows {
        let answer = ask_at(&policy, code(row[0]), NOON + 1800);
        let told = match row[1] {
            text if text.starts_with("denied by") => format!("!{}", code(text)),
            text if text.starts_with("refused") => "?".to_owned(),
            text => code(text).to_owned(),
        };
        assert!(if told == "?" { answer.starts_with('?') } else { answer == told }, "{row:?}: {answer}");
    }
}

#[test]
fn every_member_is_in_its_table_and_nothing_else_is() {
    let members = |heading: &str| table(heading).iter().map(|row| code(row[0])).collect::<Vec<_>>();
    assert_eq!(members("Endpoint"), decode::ENDPOINT);
    assert_eq!(members("`allowlist.json`"), decode::LIST);
    assert_eq!(members("`approval-<name>.json`"), decode::APPROVAL);
    let versions: Vec<_> =
        table("Endpoint").into_iter().filter(|row| row[2] == "2").map(|row| code(row[0])).collect();
    assert_eq!(versions, decode::NEWER);
}

#[test]
fn the_bounds_are_those_of_the_page() {
    let bounds = format!(
        "at most {} entries, of them {} for one host and port, each with at most {} address blocks",
        "20 000",
        limits::EGRESS_RULES_PER_PLACE,
        limits::EGRESS_GRANTS
    );
    assert!(part().replace('\n', " ").contains(&bounds) && limits::EGRESS_ENDPOINTS == 20_000);
}

#[test]
fn what_can_never_match_is_refused_as_the_page_says() {
    let rows = table("Entry");
    assert!(rows.len() > 8);
    for row in rows {
        let error = fault(&denying(r#"{"host":"denied.example"}"#, code(row[0])));
        assert!(error.contains(row[1]), "{row:?}: {error}");
    }
}
