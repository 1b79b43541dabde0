"""What the choices at earlier layers say of the next."""
