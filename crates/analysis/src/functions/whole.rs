//! Calls that are told at their end, the callees first: the records of a session with a threshold.
//!
//! They are gathered, thread by thread, until there are many or nothing more comes, and then told again in the
//! order in which they happened: a call is inside the next later one that was under way for all of its time.

/// Calls and lines of a thread that are gathered.
const MOST: usize = 1 << 14;

/// Something that happened, with the time that it took.
#[derive(Debug)]
struct Item<T> {
    began: u64,
    ended: u64,
    /// None for what is no call.
    call: bool,
    what: T,
}

/// One step of the story.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// A call begins.
    Enter(u64, T),
    /// The call that began last and has not ended ends.
    Exit(u64),
    /// Something that is no call happened.
    Moment(u64, T),
}

/// What is gathered of a thread.
#[derive(Debug)]
pub(crate) struct Whole<T> {
    items: Vec<Item<T>>,
}

impl<T> Default for Whole<T> {
    fn default() -> Whole<T> {
        Whole { items: Vec::new() }
    }
}

impl<T> Whole<T> {
    /// A call ended.
    pub(crate) fn call(&mut self, began: u64, ended: u64, what: T) {
        self.items.push(Item { began: began.min(ended), ended, call: true, what });
    }

    /// Something else happened.
    pub(crate) fn moment(&mut self, at: u64, what: T) {
        self.items.push(Item { began: at, ended: at, call: false, what });
    }

    /// Whether it is time to tell.
    pub(crate) fn is_full(&self) -> bool {
        self.items.len() >= MOST
    }

    /// Tells all, and forgets it.
    pub(crate) fn tell(&mut self, mut step: impl FnMut(Step<T>)) {
        let mut items: Vec<(usize, Item<T>)> =
            std::mem::take(&mut self.items).into_iter().enumerate().collect();
        // Of what begins at one time, the call that is told later is outside.
        items.sort_by_key(|(at, item)| (item.began, std::cmp::Reverse(*at)));
        let mut open: Vec<(usize, u64)> = Vec::new();
        for (at, item) in items {
            while let Some(&(outer, ended)) = open.last()
                && (outer < at || ended < item.ended)
            {
                step(Step::Exit(ended));
                open.pop();
            }
            if item.call {
                step(Step::Enter(item.began, item.what));
                open.push((at, item.ended));
            } else {
                step(Step::Moment(item.began, item.what));
            }
        }
        while let Some((_, ended)) = open.pop() {
            step(Step::Exit(ended));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(whole: &mut Whole<char>) -> String {
        let mut text = String::new();
        whole.tell(|step| match step {
            Step::Enter(at, name) => text += &format!("{name}{at}("),
            Step::Exit(at) => text += &format!("){at} "),
            Step::Moment(at, name) => text += &format!("{name}{at} "),
        });
        text
    }

    #[test]
    fn callees_come_first_and_go_inside() {
        let mut whole = Whole::default();
        whole.call(20, 30, 'c');
        whole.moment(35, '!');
        whole.call(40, 50, 'd');
        whole.call(10, 60, 'b');
        whole.call(70, 80, 'e');
        whole.call(10, 90, 'a');
        assert_eq!(told(&mut whole), "a10(b10(c20()30 !35 d40()50 )60 e70()80 )90 ");
        assert_eq!(told(&mut whole), "");
    }

    #[test]
    fn what_follows_is_not_inside() {
        let mut whole = Whole::default();
        whole.call(10, 20, 'a');
        whole.call(20, 30, 'b');
        whole.moment(30, '!');
        whole.call(30, 30, 'c');
        whole.call(25, 28, 'x'); // no clock of one thread says that; it is told all the same
        let text = told(&mut whole);
        assert!(text.starts_with("a10()20 b20("), "{text}");
        assert_eq!(text.matches(')').count(), 4);
    }

    #[test]
    fn a_full_one_says_so() {
        let mut whole = Whole::default();
        (0..MOST as u64).for_each(|n| whole.call(n, n + 1, 'x'));
        assert!(whole.is_full());
        whole.tell(|_| {});
        assert!(!whole.is_full());
    }
}
