//! Ctrl-C: the first one ends what is running in good order, the next one ends
//! the process, should the first not get through.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use super::failure::{Failure, Outcome};

/// Whether Ctrl-C was pressed and nothing has ended for it yet.
pub struct Interrupt {
    pressed: Arc<watch::Sender<bool>>,
}

impl Interrupt {
    /// Listens from here on. Ctrl-C no longer ends the process by itself.
    pub fn listen() -> Self {
        let pressed = Arc::new(watch::Sender::new(false));
        let listener = Arc::clone(&pressed);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                // The work may be stuck where it cannot be dropped, as in a
                // write to a pipe that nobody reads.
                if listener.send_replace(true) {
                    std::process::exit(Failure::Interrupted.exit_code().into());
                }
            }
        });
        Interrupt { pressed }
    }

    /// Runs `work` until it is done or Ctrl-C is pressed, which drops it.
    pub async fn or<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            biased;
            () = self.pressed() => {
                self.forget();
                Err(Failure::Interrupted)
            }
            outcome = work => outcome,
        }
    }

    /// Waits until Ctrl-C is pressed, and holds nothing of the channel then.
    async fn pressed(&self) {
        let mut pressed = self.pressed.subscribe();
        // It fails when the sender is dropped, which `self` holds.
        let _ = pressed.wait_for(|pressed| *pressed).await;
    }

    /// Forgets a Ctrl-C that was pressed while nothing ran.
    pub fn forget(&self) {
        self.pressed.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ctrl_c_ends_one_piece_of_work() {
        let interrupt = Interrupt {
            pressed: Arc::new(watch::Sender::new(false)),
        };
        let endless = std::future::pending::<Outcome>();
        let press = async {
            interrupt.pressed.send_replace(true);
        };
        let (outcome, ()) = tokio::join!(interrupt.or(endless), press);
        assert!(matches!(outcome, Err(Failure::Interrupted)));
        let next = interrupt.or(async { Ok(7) }).await;
        assert_eq!(next.ok(), Some(7));
    }
}
