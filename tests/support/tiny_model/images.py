"""How pictures become numbers: the normalisation that Pixtral shares with CLIP, per colour channel."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STANDARD_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
