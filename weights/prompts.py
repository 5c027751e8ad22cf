"""Texts that a check runs both models on."""

PROMPTS = (
    "",
    "واش راك",
    "اليوم رحت للسوق وشريت",
    "صباح الخير يا جماعة، كيفاش راكم؟",
    "خويا نحوس على خدمة في وهران",
    "ماشي مليح هاذ الشي، لازم نهدرو عليه!",
    "عندي 3 خاوة و ٢ خواتات… الحمد لله ❤️",
    "الدَّارْجَة تاعنا زينة bezaf ça va",
)
"""Written for the purpose: Arabic letters with and without vowel signs, both kinds of digits, signs, an emoji, Latin."""
