//! The board on a screen.

use delayline::backend::AdminOp;
use delayline::{QueueName, QueueStats};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Row, Table, TableState};

use super::board::{self, Board, Out};
use super::scrape::Late;
use crate::console::printable;
use crate::words::span;

/// The sign for an unknown value.
const UNKNOWN: &str = "-";

/// The columns after the queue's name, with their widths.
const COLUMNS: [(&str, u16); 13] = [
    ("SCHEDULED", 9),
    ("<=1s", 7),
    ("<=1m", 7),
    ("<=1h", 7),
    ("<=1d", 7),
    ("DUE", 7),
    ("OLDEST", 8),
    ("FLIGHT", 6),
    ("DEAD", 6),
    ("NET/s", 8),
    ("OUT/s", 8),
    ("LATE p50/p99", 14),
    ("", 6),
];

/// The state of the view: what is selected, and what the user was asked.
#[derive(Debug, Default)]
pub(super) struct View {
    selected: usize,
    /// What to do if the answer is yes.
    pub(super) asked: Option<(QueueName, AdminOp)>,
    /// A message that is shown once.
    remark: Option<&'static str>,
}

impl View {
    pub(super) fn up(&mut self) {
        self.remark = None;
        self.selected = self.selected.saturating_sub(1);
    }

    pub(super) fn down(&mut self, board: &Board) {
        self.remark = None;
        self.selected += 1;
        self.keep_within(board);
    }

    /// Keeps the selection on the board, because queues may be gone.
    pub(super) fn keep_within(&mut self, board: &Board) {
        self.selected = self.selected.min(board.rows.len().saturating_sub(1));
    }

    pub(super) fn ask_to_pause(&mut self, board: &Board, possible: bool) {
        self.remark = None;
        let Some(row) = board.rows.get(self.selected) else { return };
        match &row.stats {
            _ if !possible => self.remark = Some("this backend can't pause a queue"),
            Some(stats) => {
                let op = if stats.paused { AdminOp::Resume } else { AdminOp::Pause };
                self.asked = Some((row.queue.clone(), op));
            }
            None => self.remark = Some("the state of this queue is unknown"),
        }
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>, board: &Board) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
        frame.render_widget(header(board), head);
        let mut state = TableState::default().with_selected((!board.rows.is_empty()).then_some(self.selected));
        frame.render_stateful_widget(table(board), body, &mut state);
        frame.render_widget(self.footer(), foot);
    }

    fn footer(&self) -> Line<'static> {
        let text = match (&self.asked, self.remark) {
            (Some((queue, AdminOp::Resume)), _) => format!(" resume `{queue}`? y/n"),
            (Some((queue, _)), _) => format!(" pause `{queue}`? y/n"),
            (None, Some(remark)) => format!(" {remark}"),
            (None, None) => " q quit   up/down select   p pause or resume".to_owned(),
        };
        Line::styled(text, Style::new().add_modifier(Modifier::DIM))
    }
}

fn header(board: &Board) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let queues = match board.rows.len() {
        1 => "1 queue".to_owned(),
        queues => format!("{queues} queues"),
    };
    let mut text = vec![Span::styled(format!(" delayline watch: {}, {queues}", board.backend), bold)];
    if board.left_out > 0 {
        text.push(Span::raw(format!(", {} more are not shown", board.left_out)));
    }
    if let Some((named, answered)) = board.workers {
        text.push(Span::raw(format!(", {answered} of {named} workers answer")));
    }
    if let Some(trouble) = &board.trouble {
        let red = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
        text.push(Span::styled(format!("  {}", printable(trouble)), red));
    }
    Line::from(text)
}

fn table(board: &Board) -> Table<'static> {
    let header = std::iter::once(Cell::from("QUEUE")).chain(COLUMNS.iter().map(|(name, _)| right(name)));
    let widths =
        std::iter::once(Constraint::Min(12)).chain(COLUMNS.iter().map(|(_, width)| Constraint::Length(*width)));
    Table::new(board.rows.iter().map(row), widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(1)
}

fn row(row: &board::Row) -> Row<'static> {
    let mut cells = vec![Cell::from(row.queue.to_string())];
    let stats = row.stats.as_ref();
    let number = |of: fn(&QueueStats) -> u64| stats.map_or_else(unknown, |stats| right(&of(stats).to_string()));
    cells.push(number(|stats| stats.scheduled));
    let within = stats.and_then(|stats| stats.due_within);
    match within {
        Some(within) => cells.extend(within.counts().map(|count| right(&count.to_string()))),
        None => cells.extend(std::iter::repeat_with(unknown).take(4)),
    }
    cells.push(number(|stats| stats.due));
    cells.push(stats.and_then(|stats| stats.oldest_due).map_or_else(unknown, |oldest| {
        let overdue = if oldest.as_secs() > 0 { Style::new().fg(Color::Yellow) } else { Style::new() };
        right(&span(oldest)).style(overdue)
    }));
    cells.push(number(|stats| stats.in_flight));
    let dead = stats.map_or(0, |stats| stats.dead);
    let alarm = if dead > 0 { Style::new().fg(Color::Red) } else { Style::new() };
    cells.push(number(|stats| stats.dead).style(alarm));
    cells.push(row.net.map_or_else(unknown, |net| right(&signed(net))));
    cells.extend(out(row.out));
    cells.push(match stats {
        Some(stats) if stats.paused => right("paused").style(Style::new().fg(Color::Yellow)),
        Some(_) => right(""),
        None => unknown(),
    });
    Row::new(cells)
}

fn out(out: Option<Out>) -> [Cell<'static>; 2] {
    let Some(Out { per_second, lateness }) = out else { return [unknown(), unknown()] };
    let late = lateness.map_or_else(unknown, |late| right(&format!("{}/{}", bound(late.p50), bound(late.p99))));
    [right(&rate(per_second)), late]
}

fn bound(late: Late) -> String {
    match late {
        Late::AtMost(time) => span(time),
        Late::More(time) => format!(">{}", span(time)),
    }
}

fn signed(rate_per_second: f64) -> String {
    // A value that rounds to zero has no sign.
    match rate_per_second {
        rate if rate.abs() < 0.05 => "0".to_owned(),
        rate if rate > 0.0 => format!("+{}", self::rate(rate)),
        rate => format!("-{}", self::rate(-rate)),
    }
}

fn rate(per_second: f64) -> String {
    if per_second < 9.95 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

fn unknown() -> Cell<'static> {
    right(UNKNOWN)
}

fn right(text: &str) -> Cell<'static> {
    Cell::from(Text::from(text.to_owned()).alignment(Alignment::Right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::scrape::Quantiles;
    use delayline::DueWithin;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).unwrap()
    }

    fn board() -> Board {
        let mut stats = QueueStats::default();
        (stats.scheduled, stats.due, stats.in_flight, stats.dead) = (12_345, 67, 8, 9);
        stats.oldest_due = Some(Duration::from_millis(2_300));
        stats.due_within = Some(DueWithin::new([1, 22, 333, 4_444]));
        let mut paused = QueueStats::default();
        paused.paused = true;
        let lateness =
            Quantiles { p50: Late::AtMost(Duration::from_millis(5)), p99: Late::More(Duration::from_secs(60)) };
        let out = Some(Out { per_second: 250.4, lateness: Some(lateness) });
        let row = |name, stats, net, out| board::Row { queue: queue(name), stats, net, out };
        let rows = vec![
            row("exam", Some(stats), Some(-12.34), out),
            row("mail", Some(paused), Some(0.0), None),
            row("lost", None, None, None),
        ];
        Board { backend: "redis", rows, ..Board::default() }
    }

    fn drawn(view: &View, board: &Board, width: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, 6)).unwrap();
        terminal.draw(|frame| view.draw(frame, board)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..6).map(line).collect()
    }

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn each_queue_is_a_line_and_what_is_not_known_is_a_dash() {
        let lines = drawn(&View::default(), &board(), 140);
        assert_eq!(lines[0], " delayline watch: redis, 3 queues");
        let header = "QUEUE SCHEDULED <=1s <=1m <=1h <=1d DUE OLDEST FLIGHT DEAD NET/s OUT/s LATE p50/p99";
        assert_eq!(words(&lines[1]).join(" "), header);
        let exam = ["exam", "12345", "1", "22", "333", "4444", "67", "2.3s", "8", "9", "-12", "250", "5.0ms/>1m"];
        assert_eq!(words(&lines[2]), exam);
        let mail = ["mail", "0", "-", "-", "-", "-", "0", "-", "0", "0", "0", "-", "-", "paused"];
        assert_eq!(words(&lines[3]), mail);
        assert_eq!(words(&lines[4]), ["lost", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(lines[5], " q quit   up/down select   p pause or resume");
    }

    #[test]
    fn the_selection_moves_within_the_queues() {
        let (mut view, board) = (View::default(), board());
        view.up();
        assert_eq!(view.selected, 0);
        (0..9).for_each(|_| view.down(&board));
        assert_eq!(view.selected, 2);
        view.ask_to_pause(&board, true);
        assert_eq!((view.asked.clone(), view.remark), (None, Some("the state of this queue is unknown")));
        view.up();
        view.ask_to_pause(&board, true);
        assert_eq!(view.asked.clone(), Some((queue("mail"), AdminOp::Resume)));
        assert_eq!(drawn(&view, &board, 140)[5], " resume `mail`? y/n");
        view.asked = None;
        view.up();
        view.ask_to_pause(&board, false);
        assert_eq!(drawn(&view, &board, 140)[5], " this backend can't pause a queue");
        view.keep_within(&Board::default());
        assert_eq!(view.selected, 0);
    }

    #[test]
    fn trouble_and_what_is_left_out_are_said() {
        let mut board = board();
        (board.left_out, board.workers) = (7, Some((3, 2)));
        board.trouble = Some("unavailable:\x1b[2J no answer".to_owned());
        let head = &drawn(&View::default(), &board, 140)[0];
        assert!(head.contains("7 more are not shown") && head.contains("2 of 3 workers answer"), "{head}");
        assert!(head.contains("unavailable:\u{fffd}[2J no answer"), "{head}");
        // A narrow terminal is no reason to panic.
        for width in [1, 10, 40, 80] {
            drawn(&View::default(), &board, width);
        }
    }
}
