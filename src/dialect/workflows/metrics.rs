//! The coordinator's numbers, flat as its program counts them and nested under `metrics` as the monitor page reads them
//! (V9), and the agents' cards in there, with what the page needs so as not to fall over.

use serde_json::value::RawValue;

use super::object::{Object, quoted};

/// Cards on one page; past it the oldest go. Every change of an agent is shown with all of them.
const AGENTS_MAX: usize = 256;

const FLAT: [&str; 7] = [
    "total_messages",
    "total_workflows",
    "registered_agents",
    "healthy_agents",
    "active_workflows",
    "queue_size",
    "dead_letters",
];

/// The flat numbers of a coordinator that has done nothing.
pub fn zero() -> Object<'static> {
    Object::of(FLAT.map(|name| (name, "0".into())))
}

/// Adds the nested `metrics`, filled from the flat numbers where the publisher did not give them.
pub fn nest(object: &mut Object<'_>) {
    let given = object.get("metrics").and_then(|text| Object::parse(text.as_bytes())).unwrap_or_default().into_owned();
    let number = |name| object.number(name).unwrap_or("0").to_owned();
    let agents = given.get("agents").or(object.get("agents")).unwrap_or("[]");
    let mut cards = cards(agents);
    if let Some(at) = object.get("timestamp") {
        // Of a card whose publisher does not say when it was true: now.
        for card in cards.iter_mut().filter(|card| card.get("lastUpdate").is_none()) {
            card.set("lastUpdate", at);
        }
    }
    let counted = cards.len().to_string();
    let total = object.number("total_agents").or(object.number("registered_agents").filter(|total| *total != "0"));
    let base = Object::of([
        ("total_agents", total.unwrap_or(&counted).to_owned().into()),
        ("active_workflows", number("active_workflows").into()),
        ("completed_workflows", number("completed_workflows").into()),
        ("failed_workflows", number("failed_workflows").into()),
        ("agents", "[]".into()),
    ]);
    let mut nested = base.spread(given);
    nested.set("agents", list(&cards));
    object.set("metrics", nested.write());
}

/// Does the publisher say which agents there are, be it none?
pub fn names_agents(given: &Object<'_>) -> bool {
    given.get("agents").is_some() || agents_of(given).is_some()
}

/// The agents as they were last shown.
pub fn agents_of(object: &Object<'_>) -> Option<String> {
    let nested = Object::parse(object.get("metrics")?.as_bytes())?;
    nested.get("agents").map(str::to_owned)
}

/// Shows these agents, whatever was shown before.
pub fn show_agents(object: &mut Object<'_>, agents: &str) {
    let mut nested =
        object.get("metrics").and_then(|text| Object::parse(text.as_bytes())).unwrap_or_default().into_owned();
    let cards = cards(agents);
    let told = nested.number("total_agents").and_then(|total| total.parse().ok()).unwrap_or(0);
    nested.set("total_agents", cards.len().max(told).to_string());
    nested.set("agents", list(&cards));
    object.set("metrics", nested.write());
}

/// The list with one agent's card put in, or in its old place: the newest status that it said of itself.
pub fn with_agent(agents: &str, name: &str, status: &Object<'_>) -> String {
    let mut cards = cards(agents);
    let quoted_name = quoted(name);
    let at = cards.iter().position(|card| card.get("name") == Some(&quoted_name));
    let mut said = status.clone().into_owned();
    let heard = said.get("timestamp").unwrap_or("null").to_owned();
    for key in ["type", "agent_name", "timestamp"] {
        said.remove(key);
    }
    let base = match at {
        Some(at) => cards.remove(at),
        None => Object::of([("id", quoted_name.clone().into()), ("name", quoted_name.into())]),
    };
    let mut card = base.spread(said);
    card.set("lastUpdate", heard);
    fill(&mut card);
    cards.insert(at.unwrap_or(cards.len()), card);
    let surplus = cards.len().saturating_sub(AGENTS_MAX);
    cards.drain(..surplus);
    list(&cards)
}

fn cards(agents: &str) -> Vec<Object<'static>> {
    let given: Vec<&RawValue> = serde_json::from_str(agents).unwrap_or_default();
    let cards = given.into_iter().filter_map(|card| Object::parse(card.get().as_bytes()));
    cards
        .map(|card| {
            let mut card = card.into_owned();
            fill(&mut card);
            card
        })
        .collect()
}

/// A card's least: the page crashes over one without a list of capabilities.
fn fill(card: &mut Object<'_>) {
    if card.text("status").is_none() {
        card.set("status", r#""idle""#);
    }
    if !card.get("capabilities").is_some_and(|list| list.starts_with('[')) {
        card.set("capabilities", "[]");
    }
    let given = card.get("metrics").and_then(|text| Object::parse(text.as_bytes())).unwrap_or_default().into_owned();
    let names = ["tasks_completed", "tasks_failed", "avg_response_time", "uptime"];
    let metrics = Object::of(names.map(|name| (name, "0".into()))).spread(given);
    card.set("metrics", metrics.write());
}

fn list(cards: &[Object<'_>]) -> String {
    let texts: Vec<String> = cards.iter().map(Object::write).collect();
    format!("[{}]", texts.join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const ZERO: &str = r#""metrics":{"tasks_completed":0,"tasks_failed":0,"avg_response_time":0,"uptime":0}"#;

    fn nested(given: &str) -> String {
        let mut object = Object::parse(given.as_bytes()).unwrap();
        nest(&mut object);
        object.get("metrics").unwrap().to_owned()
    }

    #[test]
    fn v9_the_page_finds_what_it_reads() {
        for (given, expected) in [
            (
                "{}".to_owned(),
                r#"{"total_agents":0,"active_workflows":0,"completed_workflows":0,"failed_workflows":0,"agents":[]}"#.to_owned(),
            ),
            (
                r#"{"registered_agents":4,"active_workflows":2,"completed_workflows":7,"failed_workflows":"x","metrics":[]}"#.to_owned(),
                r#"{"total_agents":4,"active_workflows":2,"completed_workflows":7,"failed_workflows":0,"agents":[]}"#.to_owned(),
            ),
            (
                r#"{"agents":[{"name":"a","status":"busy","capabilities":["x"]},7,{"status":1,"capabilities":"x"}],"metrics":{"own":1,"total_agents":9}}"#.to_owned(),
                format!(
                    r#"{{"total_agents":9,"active_workflows":0,"completed_workflows":0,"failed_workflows":0,"agents":[{{"name":"a","status":"busy","capabilities":["x"],{ZERO}}},{{"status":"idle","capabilities":[],{ZERO}}}],"own":1}}"#
                ),
            ),
            (
                r#"{"metrics":{"agents":{"a":1}}}"#.to_owned(),
                r#"{"total_agents":0,"active_workflows":0,"completed_workflows":0,"failed_workflows":0,"agents":[]}"#.to_owned(),
            ),
        ] {
            assert_eq!(nested(&given), expected, "{given}");
        }
    }

    #[test]
    fn an_agent_s_card_is_the_newest_it_said() {
        let status = |text: &'static str| Object::parse(text.as_bytes()).unwrap();
        let one = with_agent(
            "[]",
            "w",
            &status(
                r#"{"type":"agent_status","agent_name":"w","timestamp":"T1","status":"busy","metrics":{"uptime":5}}"#,
            ),
        );
        let metrics = r#""metrics":{"tasks_completed":0,"tasks_failed":0,"avg_response_time":0,"uptime":5}"#;
        assert_eq!(
            one,
            format!(r#"[{{"id":"w","name":"w","status":"busy",{metrics},"lastUpdate":"T1","capabilities":[]}}]"#)
        );
        let two = with_agent(&one, "x", &status(r#"{"timestamp":"T2","status":"idle","capabilities":["draw"]}"#));
        let two = with_agent(&two, "w", &status(r#"{"timestamp":"T3","status":"error"}"#));
        assert_eq!(
            two,
            format!(
                r#"[{{"id":"w","name":"w","status":"error",{metrics},"lastUpdate":"T3","capabilities":[]}},{{"id":"x","name":"x","status":"idle","capabilities":["draw"],"lastUpdate":"T2",{ZERO}}}]"#
            )
        );
        let many =
            (0..AGENTS_MAX + 5).fold("[]".to_owned(), |list, n| with_agent(&list, &n.to_string(), &status("{}")));
        let kept = cards(&many);
        assert_eq!((kept.len(), kept.first().unwrap().get("name")), (AGENTS_MAX, Some(r#""5""#)));
    }
}
