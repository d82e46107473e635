"""peftlab: a reproducible study of parameter-efficient fine-tuning for multimodal LLMs."""
