//! Protobuf messages inside serialisable state: shared while alive, their wire bytes when stored.

use std::{ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A message that nobody changes any more.
#[derive(Debug, Clone, PartialEq)]
pub struct Wire<M>(pub Arc<M>);

impl<M> Wire<M> {
    pub fn new(message: M) -> Self {
        Wire(Arc::new(message))
    }
}

impl<M> Deref for Wire<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M: prost::Message> Serialize for Wire<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.encode_to_vec().serialize(serializer)
    }
}

impl<'de, M: prost::Message + Default> Deserialize<'de> for Wire<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        M::decode(bytes.as_slice())
            .map(Wire::new)
            .map_err(D::Error::custom)
    }
}
