"""Start the node: ros2 launch geodtr_localizer localizer.launch.py bundle:=/data/engine gallery:=/data/map."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

CONFIG = Path(__file__).parents[1] / "config" / "localizer.yaml"


def generate_launch_description():
    """The node with its parameters from a file; bundle, gallery and the image's topic are arguments."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("bundle", description="The bundle's folder."),
            DeclareLaunchArgument("gallery", description="The gallery's folder, or a milvus:// address."),
            DeclareLaunchArgument("image", default_value="/camera/image_raw", description="Topic with the images."),
            DeclareLaunchArgument("prior", default_value="/gnss/fix", description="Topic with the prior."),
            DeclareLaunchArgument("config", default_value=str(CONFIG), description="File with the other parameters."),
            Node(
                package="geodtr_localizer",
                executable="localizer",
                name="geodtr_localizer",
                output="screen",
                parameters=[
                    LaunchConfiguration("config"),
                    {"bundle": LaunchConfiguration("bundle"), "gallery": LaunchConfiguration("gallery")},
                ],
                remappings=[("image", LaunchConfiguration("image")), ("prior", LaunchConfiguration("prior"))],
            ),
        ]
    )
