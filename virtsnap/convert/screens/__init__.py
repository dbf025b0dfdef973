"""What a person sees, hears and types on: displays, video cards, sound, input."""
