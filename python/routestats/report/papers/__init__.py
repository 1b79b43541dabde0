"""Tables and claims that papers print, with the user's own values in them."""
