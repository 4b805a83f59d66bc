"""Networks: timm is the zoo; here is how a run names, builds, noises, averages, saves and loads one."""
