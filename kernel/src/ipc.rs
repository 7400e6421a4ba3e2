//! Channels: queues of messages between processes.

use crate::calls::Errno;

/// Channels at a time.
pub const MAX_CHANNELS: usize = 32;
/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 256;
/// Most messages that a channel can hold unreceived.
pub const MAX_CAPACITY: usize = 16;

#[derive(Clone, Copy)]
struct Message {
    length: usize,
    bytes: [u8; MAX_MESSAGE],
}

const NO_MESSAGE: Message = Message { length: 0, bytes: [0; MAX_MESSAGE] };

/// One channel; `id` 0 marks a free place in the table.
pub struct Channel {
    id: u64,
    key: u64,
    owner: u64,
    capacity: usize,
    first: usize,
    count: usize,
    /// Slots of processes asleep until a message comes, or until there is room.
    pub receivers: u64,
    pub senders: u64,
    messages: [Message; MAX_CAPACITY],
}

impl Channel {
    const fn new() -> Self {
        Channel {
            id: 0,
            key: 0,
            owner: 0,
            capacity: 0,
            first: 0,
            count: 0,
            receivers: 0,
            senders: 0,
            messages: [NO_MESSAGE; MAX_CAPACITY],
        }
    }

    pub fn is_full(&self) -> bool {
        self.count == self.capacity
    }

    /// The oldest message.
    pub fn front(&self) -> Option<&[u8]> {
        let message = &self.messages[self.first % MAX_CAPACITY];
        (self.count > 0).then(|| &message.bytes[..message.length])
    }

    /// Drops the oldest message and returns who waits for room.
    pub fn pop(&mut self) -> u64 {
        self.first = (self.first + 1) % MAX_CAPACITY;
        self.count -= 1;
        core::mem::take(&mut self.senders)
    }

    /// Where the next message of a channel that is not full goes: its first `length` bytes.
    pub fn back(&mut self, length: usize) -> &mut [u8] {
        &mut self.messages[(self.first + self.count) % MAX_CAPACITY].bytes[..length]
    }

    /// Appends the message that [`Self::back`] holds and returns who waits for one.
    pub fn push(&mut self, length: usize) -> u64 {
        self.messages[(self.first + self.count) % MAX_CAPACITY].length = length;
        self.count += 1;
        core::mem::take(&mut self.receivers)
    }

    /// Ends the channel and returns everybody who waits at it.
    fn close(&mut self) -> u64 {
        let waiters = self.receivers | self.senders;
        self.id = 0;
        self.receivers = 0;
        self.senders = 0;
        self.count = 0;
        waiters
    }
}

/// All channels. An identifier is a place in the table plus 64 times the number of channels made before, so that
/// the identifier of a closed channel never names a later one.
pub struct Channels {
    table: [Channel; MAX_CHANNELS],
    made: u64,
}

impl Channels {
    pub const fn new() -> Self {
        Channels { table: [const { Channel::new() }; MAX_CHANNELS], made: 0 }
    }

    /// The channel with an identifier.
    ///
    /// # Errors
    /// `EPIPE` for an identifier given out before: its channel is closed. `EINVAL` for any other.
    pub fn find(&mut self, id: u64) -> Result<&mut Channel, Errno> {
        let given_out = (1..=self.made).contains(&(id / 64));
        let error = if given_out { Errno::BrokenPipe } else { Errno::InvalidArgument };
        let channel = self.table.get_mut((id % 64) as usize).ok_or(Errno::InvalidArgument)?;
        if id != 0 && channel.id == id {
            Ok(channel)
        } else {
            Err(error)
        }
    }

    /// The identifier of the channel that a key (not 0) names.
    pub fn find_key(&self, key: u64) -> Option<u64> {
        self.table.iter().find(|channel| channel.id != 0 && key != 0 && channel.key == key).map(|channel| channel.id)
    }

    /// Makes a channel for a process and returns its identifier; `None` if the table is full.
    pub fn create(&mut self, owner: u64, key: u64, capacity: usize) -> Option<u64> {
        let place = self.table.iter().position(|channel| channel.id == 0)?;
        self.made += 1;
        let channel = &mut self.table[place];
        channel.id = self.made * 64 + place as u64;
        channel.key = key;
        channel.owner = owner;
        channel.capacity = capacity;
        channel.first = 0;
        Some(channel.id)
    }

    /// Closes a channel and returns everybody who waits at it.
    ///
    /// # Errors
    /// Those of [`Self::find`].
    pub fn close(&mut self, id: u64) -> Result<u64, Errno> {
        self.find(id).map(Channel::close)
    }

    /// Closes all channels that a process made and returns everybody who waits at them.
    pub fn close_all_of(&mut self, owner: u64) -> u64 {
        self.table
            .iter_mut()
            .filter(|channel| channel.id != 0 && channel.owner == owner)
            .fold(0, |waiters, channel| waiters | channel.close())
    }
}
