//! Links that lead to the same view with one thing changed.

use form_urlencoded::Serializer;

use crate::queue::State;
use crate::request::{Asked, DEFAULT_PER_PAGE, Target};

/// Another page of the same selection.
pub fn page(asked: &Asked, page: u64) -> String {
    let filter = &asked.filter;
    let mut query = Serializer::for_suffix(String::from("?"), 1);
    let text =
        [("q", &filter.text), ("domain", &filter.domain), ("sender", &filter.sender), ("reason", &filter.reason)];
    for (name, value) in text {
        query.extend_pairs(value.iter().map(|value| (name, value)));
    }
    query.extend_pairs(filter.state.map(|state| ("state", State::as_str(state))));
    query.extend_pairs(asked.order.map(|order| ("sort", order.to_word())));
    if let Some(window) = asked.window.filter(|window| window.per_page != DEFAULT_PER_PAGE) {
        query.append_pair("per_page", &window.per_page.to_string());
    }
    query.append_pair("page", &page.to_string());
    query.finish()
}

/// The link that runs a part of the queue.
pub fn flush(target: &Target) -> String {
    Serializer::for_suffix(String::from("?"), 1).append_pair("flush", &target.to_string()).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_keeps_the_selection() {
        let query = "q=a+%26b&state=held&sort=-age&per_page=20&page=3&flushed=1&format=html";
        let asked = Asked::read(form_urlencoded::parse(query.as_bytes()).into_owned(), None).unwrap();
        assert_eq!(page(&asked, 4), "?q=a+%26b&state=held&sort=-age&per_page=20&page=4");
    }
}
