"""The main job from start to finish, as `levelsync demo` shows it."""
