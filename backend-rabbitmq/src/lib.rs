//! The RabbitMQ backend of delayline.
