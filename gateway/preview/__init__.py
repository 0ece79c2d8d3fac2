"""What a recipient will see, before one does: a sample mail through the real signature, as text, page or picture."""
