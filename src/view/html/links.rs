//! Links that lead to the same view with one thing changed.

use form_urlencoded::Serializer;

use crate::queue::{Filter, Order, SortKey, State, Window};
use crate::request::{Asked, DEFAULT_PER_PAGE, OLDEST_FIRST};

/// The parameters in the address of a view.
pub(crate) fn parameters(asked: &Asked) -> Vec<(&'static str, String)> {
    let Filter { text, domain, sender, state, reason, age, returns } = &asked.filter;
    let texts = [("q", text), ("domain", domain), ("sender", sender), ("reason", reason)];
    let mut list: Vec<_> = texts.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
    list.extend(age.map(|age| ("age", age.to_string())));
    list.extend(returns.as_ref().map(|due| ("returns", due.to_string())));
    list.extend(state.map(|state| ("state", State::as_str(state).to_owned())));
    list.extend(asked.order.filter(|order| *order != OLDEST_FIRST).map(|order| ("sort", order.to_word())));
    let per_page = asked.window.map(|window| window.per_page).filter(|per_page| *per_page != DEFAULT_PER_PAGE);
    list.extend(per_page.map(|per_page| ("per_page", per_page.to_string())));
    list.extend(asked.live.then(|| ("live", String::new())));
    list
}

/// Another page of the same selection: its messages.
pub(crate) fn page(asked: &Asked, page: u64) -> String {
    link(parameters(asked), Some(page)) + MESSAGES
}

/// What a link ends with that leads to the messages, past what stands above them. A page that renews itself stays there.
const MESSAGES: &str = "#messages";

/// What came of a queue run, in the view in which that was asked for.
pub(crate) fn followed(asked: &Asked, number: u64) -> String {
    view(&Asked {
        flushed: Some(number),
        window: asked.window.map(|window| Window { page: 1, ..window }),
        ..asked.clone()
    })
}

/// Everything, kept live or not as before.
pub(crate) fn all(asked: &Asked) -> &'static str {
    if asked.live { "?live=" } else { "?" }
}

/// The same view; kept live if it is not, and still if it is.
pub(crate) fn live(asked: &Asked) -> String {
    view(&Asked { live: !asked.live, ..asked.clone() })
}

/// The view itself. Chromium keeps its place when it renews a page by this address; with none, it would not renew a page at
/// all whose address ends with a fragment.
pub(crate) fn view(asked: &Asked) -> String {
    let mut list = parameters(asked);
    list.extend(asked.flushed.map(|number| ("flushed", number.to_string())));
    link(list, asked.window.map(|window| window.page as u64).filter(|page| *page > 1))
}

/// The first page of another selection.
pub(crate) fn filtered(asked: &Asked, change: impl FnOnce(&mut Filter)) -> String {
    let mut asked = asked.clone();
    change(&mut asked.filter);
    link(parameters(&asked), None)
}

/// One message, by its id.
pub(crate) fn message(asked: &Asked, id: &str) -> String {
    let filter = Filter { text: Some(id.to_owned()), ..Filter::default() };
    link(parameters(&Asked { filter, live: asked.live, ..Asked::of(asked.format) }), None)
}

/// The first page in the order of `key`: in its usual direction, or, where that is in force, in the other one.
pub(crate) fn sorted(asked: &Asked, key: SortKey) -> String {
    let largest_first = matches!(key, SortKey::Age | SortKey::Size);
    let reversed = asked.order.filter(|order| order.key == key).map_or(largest_first, |order| !order.reversed);
    link(parameters(&Asked { order: Some(Order { key, reversed }), ..asked.clone() }), None) + MESSAGES
}

fn link(parameters: Vec<(&'static str, String)>, page: Option<u64>) -> String {
    let mut query = Serializer::for_suffix(String::from("?"), 1);
    query.extend_pairs(parameters);
    query.extend_pairs(page.map(|page| ("page", page.to_string())));
    query.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Format;

    fn asked(query: &str) -> Asked {
        Asked::read(form_urlencoded::parse(query.as_bytes()).into_owned(), Format::Html).unwrap()
    }

    #[test]
    fn a_link_keeps_the_selection() {
        let asked = asked("q=a+%26b&state=held&sort=age&per_page=20&page=3&flushed=1&format=html");
        assert_eq!(page(&asked, 4), "?q=a+%26b&state=held&sort=age&per_page=20&page=4#messages");
        assert_eq!(filtered(&asked, |filter| filter.text = None), "?state=held&sort=age&per_page=20");
    }

    #[test]
    fn a_live_view_stays_where_it_is() {
        let asked = asked("q=x&page=3&flushed=7");
        assert_eq!(live(&asked), "?q=x&live=&flushed=7&page=3");
        let kept = Asked { live: true, ..asked };
        assert_eq!(live(&kept), "?q=x&flushed=7&page=3");
        assert_eq!(page(&kept, 4), "?q=x&live=&page=4#messages");
        assert_eq!(followed(&kept, 8), "?q=x&live=&flushed=8");
    }

    #[test]
    fn a_second_click_turns_the_order_round() {
        let links = ["", "sort=size", "sort=-size", "sort=sender"].map(|query| sorted(&asked(query), SortKey::Size));
        let expected =
            ["?sort=-size", "?sort=-size", "?sort=size", "?sort=-size"].map(|link| format!("{link}#messages"));
        assert_eq!(links, expected);
        assert_eq!(sorted(&asked("sort=age"), SortKey::Age), "?#messages", "the default");
    }
}
