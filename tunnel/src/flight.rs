//! How much may be under way on one connection: sent and not yet arrived.
//!
//! The connection crosses several TCP connections (to the API server, to the node, into the pod), each with buffers of
//! megabytes that no option of ours reaches. Bytes that wait there keep every ping waiting, so no more is sent than the path
//! can carry: the rate at which bytes arrive, times the shortest round trip (as BBR has it, draft-ietf-ccwg-bbr), and what it carries in
//! a little while where no ping would notice ([`crate::attention`]).

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Until something was measured, in bytes.
const INITIAL: u64 = 256 << 10;
/// Never less than this, in bytes: two packets, so that the report of one's arrival finds the next under way.
const LEAST: u64 = 64 << 10;
/// What may wait on the path besides while nobody waits for little, as the time that it takes: each process on the way finds more to
/// do when it wakes, which is what a fast path is limited by. The first ping among bulk waits as long.
const QUEUE: Duration = Duration::from_millis(50);
/// Above what was measured, to find out whether the path carries more.
const GAIN: f64 = 1.25;
/// The same at the begin, when little is known: each round may double.
const STARTUP_GAIN: f64 = 2.5;
/// The begin is over after this many rounds in which the rate did not grow by a quarter.
const STARTUP_ROUNDS: u32 = 3;
/// How many bytes lie between two of which the time of sending is kept.
const MARK: u64 = 16 << 10;
/// Rounds whose fastest is taken for the rate of the path.
const ROUNDS: usize = 8;
/// A round takes two round trips, or this if that is more.
const ROUND: Duration = Duration::from_millis(20);

/// The receiving end reports arrivals whenever this many bytes have come (each report is a packet on the whole way back), ...
pub(crate) const REPORT: u64 = 128 << 10;
/// ... or at least this many and none since [`REPORT_DELAY`]. Fewer are not worth it: reports themselves arrive.
pub(crate) const REPORT_LEAST: u64 = 2 << 10;
/// See [`REPORT_LEAST`].
pub(crate) const REPORT_DELAY: Duration = Duration::from_millis(5);

/// What one end knows of what it sent. Offsets count the bytes of the transport, ciphertext, from its begin.
#[derive(Debug)]
pub(crate) struct Flight {
    sent: u64,
    arrived: u64,
    /// `None` until the other end has reported for the first time: a plain SSH peer never does.
    window: Option<u64>,
    /// How much the path carries in [`QUEUE`].
    queue: u64,
    shortest: Option<Duration>,
    /// When which offset was sent, for the round trip.
    marks: VecDeque<(u64, Instant)>,
    round: Round,
    rates: VecDeque<f64>,
    /// The highest rate of all rounds.
    peak: f64,
    /// The highest rate of the begin and the rounds since it grew; `None` once the begin is over.
    startup: Option<(f64, u32)>,
}

#[derive(Debug)]
struct Round {
    begun: Instant,
    arrived: u64,
    /// Whether the window held anything back: else the rate says what was offered, not what the path carries.
    limited: bool,
}

impl Flight {
    pub(crate) fn new(now: Instant) -> Flight {
        Flight {
            sent: 0,
            arrived: 0,
            window: None,
            queue: 0,
            shortest: None,
            marks: VecDeque::new(),
            round: Round {
                begun: now,
                arrived: 0,
                limited: false,
            },
            rates: VecDeque::new(),
            peak: 0.0,
            startup: Some((0.0, 0)),
        }
    }

    /// `count` more bytes were sent.
    pub(crate) fn sent(&mut self, count: u64, now: Instant) {
        self.sent += count;
        let last = self
            .marks
            .back()
            .map_or(self.arrived, |(offset, _)| *offset);
        if self.window.is_some() && self.sent - last >= MARK {
            self.marks.push_back((self.sent, now));
        }
    }

    /// Whether more may be sent, beside `promised` bytes that are about to be; `attention` says whether anybody waits for little.
    pub(crate) fn has_room(&mut self, promised: u64, attention: bool) -> bool {
        let Some(window) = self.window else {
            return true;
        };
        let window = match attention {
            true => window,
            false => window + self.queue,
        };
        let room = self.under_way(promised) < window;
        self.round.limited |= !room;
        room
    }

    /// Whether more may be sent where bulk has filled the path and the queue on it: up to `beyond` more than that.
    pub(crate) fn has_room_beyond(&self, promised: u64, beyond: u64) -> bool {
        self.window
            .is_none_or(|window| self.under_way(promised) < window + self.queue + beyond)
    }

    fn under_way(&self, promised: u64) -> u64 {
        self.sent - self.arrived + promised
    }

    /// The other end reports that everything before `total` has arrived.
    pub(crate) fn arrived(&mut self, total: u64, now: Instant) {
        // A report of what was never sent is worth nothing; one that is late says nothing new.
        if total > self.sent || total < self.arrived {
            return;
        }
        self.arrived = total;
        self.window.get_or_insert(INITIAL);
        while let Some((offset, at)) = self.marks.front().copied()
            && offset <= total
        {
            self.marks.pop_front();
            let trip = now - at;
            self.shortest = Some(self.shortest.map_or(trip, |shortest| shortest.min(trip)));
        }
        let Some(shortest) = self.shortest else {
            return;
        };
        let elapsed = now - self.round.begun;
        if elapsed >= ROUND.max(shortest * 2) {
            self.end_round(elapsed, shortest);
            self.round = Round {
                begun: now,
                arrived: total,
                limited: false,
            };
        }
    }

    fn end_round(&mut self, elapsed: Duration, shortest: Duration) {
        if !self.round.limited {
            return;
        }
        let bytes = u32::try_from(self.arrived - self.round.arrived).unwrap_or(u32::MAX);
        let rate = f64::from(bytes) / elapsed.as_secs_f64();
        self.peak = self.peak.max(rate);
        self.rates.push_back(rate);
        if self.rates.len() > ROUNDS {
            self.rates.pop_front();
        }
        let fastest = self.rates.iter().copied().fold(0.0, f64::max);
        self.startup = self
            .startup
            .and_then(|(best, rounds)| match rate > best * 1.25 {
                true => Some((rate, 0)),
                false => (rounds + 1 < STARTUP_ROUNDS).then_some((best, rounds + 1)),
            });
        let gain = match self.startup {
            Some(_) => STARTUP_GAIN,
            None => GAIN,
        };
        // Not negative, not a NaN, and far below the largest integer.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let carried = |rate: f64, time: Duration| (rate * time.as_secs_f64()) as u64;
        // What has arrived and is not reported yet is under way, too. By the rate that the path has shown it can carry: the one at hand
        // falls with the window where reports take longer than the shortest trip, and the window must not fall with it.
        let unreported = carried(self.peak, REPORT_DELAY * 2) + REPORT_LEAST;
        let window = carried(fastest, shortest.mul_f64(gain)) + unreported.min(2 * REPORT);
        self.window = Some(window.max(LEAST));
        self.queue = carried(fastest, QUEUE);
    }

    /// Bytes sent so far.
    pub(crate) fn total(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all it may over a path of `rate` bytes per second and `trip`, for `time`; the largest queue the path had, in bytes.
    async fn run(
        flight: &mut Flight,
        (rate, trip): (f64, Duration),
        time: Duration,
        attention: bool,
    ) -> u64 {
        let step = Duration::from_millis(1);
        let (mut now, begin) = (Instant::now(), Instant::now());
        let (mut carried, mut queue) = (flight.arrived as f64, 0);
        let mut reports: VecDeque<(Instant, u64)> = VecDeque::new();
        let (mut reported, mut reported_at) = (flight.arrived, now);
        while now < begin + time {
            while flight.has_room(0, attention) && flight.sent < 1 << 40 {
                flight.sent(16 << 10, now);
            }
            carried = (carried + rate * step.as_secs_f64()).min(flight.sent as f64);
            if now > begin + time / 2 {
                queue = queue.max(flight.sent - carried as u64);
            }
            let new = carried as u64 - reported;
            let waited = new >= REPORT_LEAST && now >= reported_at + REPORT_DELAY;
            if new >= REPORT || waited {
                (reported, reported_at) = (carried as u64, now);
                reports.push_back((now + trip, reported));
            }
            now += step;
            while let Some((at, total)) = reports.front().copied()
                && at <= now
            {
                reports.pop_front();
                flight.arrived(total, now);
            }
        }
        tokio::time::advance(time).await;
        queue
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_finds_what_the_path_holds() {
        for (rate, trip) in [
            (20e6, 40),
            (100e6, 10),
            (2e6, 100),
            (300e6, 2),
            (1e6, 30),
            (1e5, 100),
        ] {
            let path = (rate, Duration::from_millis(trip));
            let holds = rate * path.1.as_secs_f64();
            let mut flight = Flight::new(Instant::now());
            flight.arrived(0, Instant::now());
            let queue = run(&mut flight, path, Duration::from_secs(20), true).await as f64;
            let window = flight.window.unwrap() as f64;
            let unreported = (rate * 2.0 * REPORT_DELAY.as_secs_f64()).min(2.0 * REPORT as f64);
            let most = 1.6 * (holds + unreported) + LEAST as f64;
            assert!(window >= holds, "{path:?}: {window} of {holds}");
            assert!(window <= most, "{path:?}: {window} of {holds}");
            assert!(queue <= most, "{path:?}: {queue} of {holds}");

            let waits = rate * QUEUE.as_secs_f64();
            let queue = run(&mut flight, path, Duration::from_secs(20), false).await as f64;
            assert!(queue >= waits, "{path:?}: {queue} of {holds}");
            assert!(queue <= most + 1.6 * waits, "{path:?}: {queue} of {holds}");
            // As soon as somebody waits, what has queued drains.
            let queue = run(&mut flight, path, Duration::from_secs(20), true).await as f64;
            assert!(queue <= most, "{path:?}: {queue} of {holds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_promised_is_under_way_too() {
        let (mut flight, now) = (Flight::new(Instant::now()), Instant::now());
        flight.sent(100, now);
        flight.arrived(50, now);
        flight.sent(INITIAL - 60, now);
        assert!(flight.has_room(9, true));
        assert!(!flight.has_room(10, true));
        assert!(!flight.has_room(11, true));
        assert_eq!(flight.total(), INITIAL + 40);
    }

    /// Who begins to send little finds the queue that bulk was allowed.
    #[tokio::test(start_paused = true)]
    async fn what_lies_beyond_lies_beyond_the_queue() {
        let now = Instant::now();
        let mut flight = Flight::new(now);
        assert!(flight.has_room_beyond(1 << 30, 0), "nothing was reported");
        flight.arrived(0, now);
        flight.queue = 1000;
        flight.sent(INITIAL + 1000, now);
        assert!(!flight.has_room(0, false));
        assert!(flight.has_room_beyond(99, 100));
        assert!(!flight.has_room_beyond(100, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_path_stays_one_when_its_trips_take_longer() {
        let mut flight = Flight::new(Instant::now());
        flight.arrived(0, Instant::now());
        for trip in [5, 50] {
            let path = (100e6, Duration::from_millis(trip));
            run(&mut flight, path, Duration::from_secs(20), true).await;
        }
        let window = flight.window.unwrap();
        assert!(window >= 2 * REPORT, "{window}");
    }

    /// A round begins; all that it measures is sent at once. Returns the window before and after reports of arrivals at these times.
    fn round(flight: &mut Flight, begin: Instant, reports: &[(u64, u64)]) -> Vec<u64> {
        let mut windows = vec![];
        let base = flight.arrived;
        for _ in 0..reports.last().unwrap().1 / MARK {
            flight.sent(MARK, begin);
        }
        let _ = flight.has_room(u64::from(u32::MAX), true);
        for (millisecond, bytes) in reports {
            flight.arrived(base + bytes, begin + Duration::from_millis(*millisecond));
            windows.push(flight.window.unwrap());
        }
        windows
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_takes_two_trips_and_measures_rate_and_window() {
        const ALL: u64 = 8 << 20;
        let begin = Instant::now();
        let mut flight = Flight::new(begin);
        flight.arrived(0, begin);
        let windows = round(
            &mut flight,
            begin,
            &[(30, 1 << 20), (59, 2 << 20), (60, ALL)],
        );
        // 8 MiB in two trips are 4 in one, which the begin lets grow.
        let measured = ALL / 2 * 5 / 2 + 2 * REPORT;
        assert_eq!(windows, [INITIAL, INITIAL, measured]);

        let mut flight = Flight::new(begin);
        flight.arrived(0, begin);
        let windows = round(
            &mut flight,
            begin,
            &[(2, MARK), (19, 2 * MARK), (20, 2 << 20)],
        );
        assert_eq!(windows[..2], [INITIAL, INITIAL]);
        assert!(windows[2] > INITIAL);
    }

    #[tokio::test(start_paused = true)]
    async fn the_begin_is_over_when_the_rate_does_not_grow() {
        let mut begin = Instant::now();
        let mut flight = Flight::new(begin);
        flight.arrived(0, begin);
        let mut windows: Vec<u64> = vec![];
        for millions in [1, 2, 2, 2, 2] {
            let bytes = millions << 20;
            windows.extend(round(&mut flight, begin, &[(30, bytes / 2), (60, bytes)]).last());
            begin += Duration::from_millis(60);
        }
        let (most, least) = ((5 << 20) / 2 + 2 * REPORT, (5 << 20) / 4 + 2 * REPORT);
        assert_eq!(windows[1..], [most, most, most, least]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_grows_by_less_than_a_quarter_does_not_grow() {
        let mut begin = Instant::now();
        let mut flight = Flight::new(begin);
        flight.arrived(0, begin);
        for millions in [20, 21, 22, 23] {
            let bytes = millions << 20;
            round(&mut flight, begin, &[(30, bytes / 2), (60, bytes)]);
            begin += Duration::from_millis(60);
        }
        let window = flight.window.unwrap();
        assert!(window < (23 << 20) / 2 * 2, "{window}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_little_says_nothing_of_the_path() {
        let begin = Instant::now();
        let mut flight = Flight::new(begin);
        flight.arrived(0, begin);
        round(&mut flight, begin, &[(30, 1 << 20), (60, 8 << 20)]);
        let measured = flight.window;
        for millisecond in 61..1000 {
            let now = begin + Duration::from_millis(millisecond);
            flight.sent(1 << 10, now);
            assert!(flight.has_room(0, true));
            flight.arrived(flight.sent, now);
        }
        assert_eq!(flight.window, measured);
    }

    #[tokio::test(start_paused = true)]
    async fn few_times_of_sending_are_kept_and_none_without_reports() {
        let now = Instant::now();
        let mut flight = Flight::new(now);
        flight.sent(1 << 20, now);
        assert!(flight.marks.is_empty());
        flight.arrived(1 << 20, now);
        for _ in 0..1024 {
            flight.sent(1 << 10, now);
        }
        assert_eq!(flight.marks.len(), (1 << 20) / MARK as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn without_reports_nothing_is_held_back() {
        let mut flight = Flight::new(Instant::now());
        flight.sent(1 << 30, Instant::now());
        assert!(flight.has_room(1 << 30, true));
    }

    #[tokio::test(start_paused = true)]
    async fn false_reports_change_nothing() {
        let mut flight = Flight::new(Instant::now());
        flight.sent(1000, Instant::now());
        flight.arrived(1001, Instant::now());
        assert!(flight.window.is_none());
        flight.arrived(800, Instant::now());
        flight.arrived(700, Instant::now());
        assert_eq!((flight.arrived, flight.window), (800, Some(INITIAL)));
    }
}
