"""A small Linux guest: how it is built (`build`), and how a test talks to it (`console`)."""
